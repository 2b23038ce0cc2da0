//! Machine-readable output: the JSON of every command, the JSON Schema, shell completions.

mod common;

use common::{Folder, Pipeline};
use serde_json::{Value, json};

/// Runs srpipe and parses its output.
fn json_of(folder: &Folder, args: &[&str]) -> Value {
    let output = folder.srpipe(args);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}\n{output}"))
}

#[test]
fn every_json_object_states_its_schema_version() {
    let folder = Pipeline::small().folder();
    let run = folder.run(&["--json"]);
    assert_eq!(run.events()[0]["schema"], 1, "{run}");
    for args in [
        &["status", "--json"][..],
        &["status", "p.yaml", "--json"],
        &["status", "p", "--json"],
        &["check", "p.yaml", "--json"],
        &["verify", "--json"],
        &["gc", "--json"],
        &["export", "p", "x.tar", "--json"],
        &["import", "x.tar", "--json"],
        &["pin", "p", "--json"],
        &["unpin", "p", "--json"],
        &["logs", "images", "--json"],
        &["plan", "p.yaml", "--json"],
        &["why", "p.yaml", "pairs", "--json"],
        &["graph", "p.yaml", "--json"],
        &["runs", "--json"],
        &["diff", "p", "p", "--json"],
        &["run", "p.yaml", "--dry-run", "--json"],
        &["bench", "--base-channels", "2", "--batch", "1", "--image-size", "4", "--seconds", "0", "--json"],
    ] {
        assert_eq!(json_of(&folder, args)["schema"], 1, "{args:?}");
    }
    let status = json_of(&folder, &["status", "--json"]);
    assert_eq!((&status["store"]["results"], &status["store"]["unfinished"]), (&json!(3), &json!(0)), "{status}");
    let logs = json_of(&folder, &["logs", "images", "--json"]);
    assert_eq!(
        (&logs["pipeline"], &logs["state"], logs["text"].is_string()),
        (&json!("p"), &json!("ran"), true),
        "{logs}"
    );
}

#[test]
fn errors_of_a_file_are_reported_with_their_positions() {
    let folder = Pipeline::small().folder();
    folder.write("bad.yaml", "name: bad\nstages:\n  a: {kind: command, command: ['{inputs.x}'], outputs: [../o]}\n");
    let output = folder.srpipe(&["check", "--json", "p.yaml", "bad.yaml"]);
    assert_eq!(output.code, Some(2), "{output}");
    let value: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(value["files"][0], json!({"file": "p.yaml", "stages": 3, "errors": []}));
    let errors = value["files"][1]["errors"].as_array().unwrap();
    let output: Vec<(&str, &str)> =
        errors.iter().map(|e| (e["place"].as_str().unwrap(), e["message"].as_str().unwrap())).collect();
    assert_eq!(
        output,
        [("bad.yaml:3:32", "`{inputs.x}` is not declared"), ("bad.yaml:3:57", "`../o` is not a valid output name")]
    );
}

#[test]
fn the_schema_is_json_and_shells_get_completions() {
    let folder = Pipeline::small().folder();
    let schema = json_of(&folder, &["schema"]);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["properties"]["defaults"]["properties"]["train"]["properties"]["optim"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        let output = folder.srpipe(&["completions", shell]);
        assert!(output.code == Some(0) && output.stdout.contains("srpipe"), "{output}");
    }
    assert!(!folder.runs().exists());
}

/// To update the files: `srpipe schema > pipelines/srpipe.schema.json; srpipe schema --markdown > docs/reference.md`.
#[test]
fn the_committed_schema_and_reference_are_up_to_date() {
    let folder = Pipeline::new().folder();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, args) in
        [("pipelines/srpipe.schema.json", &["schema"][..]), ("docs/reference.md", &["schema", "--markdown"])]
    {
        let committed = std::fs::read_to_string(root.join(file)).unwrap();
        let output = folder.srpipe(args).stdout;
        assert!(committed == output, "{file} is out of date: srpipe {} > {file}", args.join(" "));
    }
    for file in std::fs::read_dir(root.join("pipelines")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|e| e == "yaml") {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("# yaml-language-server: $schema=srpipe.schema.json\n"), "{}", file.display());
        }
    }
}

#[test]
fn help_documents_events_and_exit_codes() {
    let folder = Pipeline::new().folder();
    let help = folder.srpipe(&["run", "--help"]);
    for text in ["run_finished", "out_of_memory", "\"schema\": 1", "130  interrupted"] {
        assert!(help.stdout.contains(text), "{text}: {help}");
    }
}
