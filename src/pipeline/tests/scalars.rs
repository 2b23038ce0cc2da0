//! Tests of ambiguous scalars: strings that look like numbers, lookalikes of ASCII characters, `#` and `<<`.

use super::*;
use crate::config::*;

/// A pipeline with a command whose environment is swept.
fn swept(values: &str) -> String {
    format!("{SMALL}  x: {{ kind: command, command: [a], outputs: [o], matrix: {{ env.V: {values} }} }}\n")
}

fn helps(text: &str, sets: &[&str]) -> Vec<String> {
    let errors = parse_with(text, sets).unwrap_err();
    errors.errors().iter().map(|e| e.help.clone().unwrap_or_default()).collect()
}

fn env(pipeline: &Pipeline) -> Vec<String> {
    let of = |stage: &Stage| match &stage.params {
        StageParams::Command(params) => params.env.get("V").cloned(),
        _ => None,
    };
    pipeline.stages.iter().filter_map(of).collect()
}

#[test]
fn strings_that_look_like_numbers_are_distinct_axis_values() {
    for (values, expected) in [
        ("[3.1, 3.10]", vec!["3.1", "3.10"]),
        ("[01, 1]", vec!["01", "1"]),
        ("[1e3, 1000, 0x10, 16, 1_000]", vec!["1e3", "1000", "0x10", "16", "1_000"]),
        (
            "[yes, no, on, off, 2024-01-01, '~', 'true', nan, .nan]",
            vec!["yes", "no", "on", "off", "2024-01-01", "~", "true", "nan", ".nan"],
        ),
    ] {
        let pipeline = valid(&swept(values));
        assert_eq!(env(&pipeline), expected);
        // The resolved file of a run has the same meaning.
        let again = valid(&pipeline.resolved());
        assert_eq!(env(&again), expected, "{}", pipeline.resolved());
        let names = |pipeline: &Pipeline| pipeline.stages.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&again), names(&pipeline));
    }
    let pipeline = valid(&swept("[3.1, 3.10]"));
    assert!(pipeline.stage("x[V=3.10]").is_some() && pipeline.stage("x[V=3.1]").is_some());
    // The same holds in a list, in `exclude` and `include`, and on the command line.
    let list = "  x: { kind: command, command: [a], outputs: [o], matrix: { command: [[py, 3.1], [py, 3.10]] } }\n";
    assert_eq!(valid(&format!("{SMALL}{list}")).named("x").len(), 2);
    let two = swept("[3.1, 3.10], exclude: [{ env.V: 3.10 }], include: [{ V: 3.100 }]");
    assert_eq!(env(&valid(&two)), ["3.1", "3.100"]);
    let flags = Flags { set: vec![], sweep: vec!["stages.x.env.V=3.1,3.10,01,1".to_string()] };
    let pipeline = parse("test.yaml", swept("[a]"), &flags).unwrap();
    assert_eq!(env(&pipeline), ["3.1", "3.10", "01", "1"]);
}

#[test]
fn an_axis_cannot_list_a_number_twice() {
    let axis = |values: &str| {
        let text = SMALL.replace("{ kind: train }", &format!("{{ kind: train, matrix: {{ {values} }} }}"));
        messages(&text, &[])
    };
    assert_eq!(axis("optim.lr: [0.1, 0.10]"), ["axis `optim.lr` has `0.1` and `0.10`, which are the same number"]);
    assert_eq!(axis("seed: [01, 1]"), ["axis `seed` has `01` and `1`, which are the same number"]);
    assert_eq!(axis("seed: [1, 1]"), ["axis `seed` lists `1` twice"]);
    assert_eq!(messages(&swept("[1, '1']"), &[]), ["axis `env.V` lists `1` twice"]);
}

#[test]
fn strings_keep_their_spelling_in_the_resolved_pipeline() {
    let digest = "1e".to_string() + &"9".repeat(62);
    let text = format!(
        "name: 3.10\nstages:\n  1.0: {{ kind: fetch, dataset: cifar10, url: file:x, sha256: {digest} }}\n  \
         2.50: {{ kind: degrade, input: 1.0, scale: 4.0 }}\n  \
         x: {{ kind: command, command: [a, 3.10, 0x10], inputs: {{ i: 2.50 }}, outputs: [o], env: {{ V: 1e3 }} }}\n"
    );
    let pipeline = valid(&text);
    let again = valid(&pipeline.resolved());
    assert_eq!(again.name, "3.10");
    for (a, b) in pipeline.stages.iter().zip(&again.stages) {
        assert_eq!((&a.name, &a.params), (&b.name, &b.params));
    }
    assert!(pipeline.resolved().contains("scale: 4\n"), "{}", pipeline.resolved());
}

#[test]
fn a_hash_on_the_command_line_does_not_start_a_comment() {
    let folder = SMALL.replace("dataset: synthetic", "dataset: folder, path: x");
    let path = |set: &str| match &valid_with(&folder, &[set]).stages[0].params {
        StageParams::Fetch(FetchParams::Folder(p)) => p.path.clone(),
        other => panic!("{other:?}"),
    };
    for typed in ["my photos #1", "#1", "a#b", "a # b", "ü #1"] {
        assert_eq!(path(&format!("stages.images.path={typed}")), typed);
    }
    assert_eq!(path("stages.images.path='my # photos'"), "my # photos");
    let flags = |sweep: &str| Flags { set: vec![], sweep: vec![sweep.to_string()] };
    let pipeline = parse("test.yaml", swept("[a]"), &flags("stages.x.env.V=a #1,#2,'c #3'")).unwrap();
    assert_eq!(env(&pipeline), ["a #1", "#2", "c #3"]);
    assert_eq!(valid_with(SMALL, &["description=run #3"]).description.as_deref(), Some("run #3"));
    // In a file it starts a comment.
    assert_eq!(valid(&SMALL.replace("name: small", "name: small #1")).name, "small");
    assert_eq!(
        messages(SMALL, &["seed=1 # one"]),
        [format!("`seed` must be an integer from 0 to {}, found `1 # one`", u64::MAX)]
    );
    assert_eq!(helps(SMALL, &["stages.model.optim={lr: 1} # x"]), ["`#` does not start a comment on the command line"]);
}

#[test]
fn two_merge_keys_are_refused() {
    let text =
        "name: m\nstages:\n  a: &a { kind: fetch, dataset: synthetic, train: 11 }\n  b:\n    <<: *a\n    <<: *a\n";
    let found = parse_with(text, &[]).unwrap_err().to_string();
    assert!(found.contains("error: duplicate key `<<`"), "{found}");
    assert!(found.contains("help: merge several mappings with one key: `<<: [*first, *second]`"), "{found}");
    let list = text.replace("    <<: *a\n    <<: *a\n", "    <<: [*a, *a]\n");
    assert_eq!(valid(&list).stages.len(), 2);
    let empty = text.replace("    <<: *a\n    <<: *a\n", "    <<: []\n    <<: [*a]\n");
    assert!(messages(&empty, &[]).contains(&"duplicate key `<<`".to_string()));
}

#[test]
fn lookalikes_of_ascii_characters_are_named() {
    for (file, expected) in [
        (SMALL.replace("name: small", "name: small\nseed: 3\u{a0}"), "a no-break space (U+00A0)"),
        (SMALL.replace("name: small", "name: small\nseed\u{200b}: 3"), "a zero-width space (U+200B)"),
        (SMALL.replace("steps: 10", "steps: 10, lr: 1e–3"), "an en dash (U+2013)"),
        (SMALL.replace("steps: 10", "steps: 10, lr: 1e−3"), "a minus sign (U+2212)"),
        (SMALL.replace("steps: 10", "steps: 10, weight–decay: 0"), "an en dash (U+2013)"),
        (SMALL.replace("kind: fetch", "kind: “fetch”"), "a typographic quote (U+201C)"),
        (SMALL.replace("kind: fetch", "kind: fetch\u{a0}"), "a no-break space (U+00A0)"),
        (SMALL.replace("model: model", "model: model\u{a0}"), "a no-break space (U+00A0)"),
        (SMALL.replace("  pairs:", "  pa‑irs:"), "a typographic hyphen (U+2011)"),
        (SMALL.replace("name: small", "name: sm–all"), "an en dash (U+2013)"),
        (SMALL.replace("name: small", "name: small\ndevice: cpu\u{a0}"), "a no-break space (U+00A0)"),
    ] {
        let helps = helps(&file, &[]);
        assert!(helps.iter().any(|help| help.contains(expected)), "{file}\n{helps:?}");
    }
    let indented = SMALL.replace("  model: { kind", "\u{a0} model: { kind");
    let found = messages(&indented, &[]);
    assert_eq!(found, ["the indentation contains a no-break space (U+00A0)"], "{indented}");
    // Inside strings they are ordinary characters.
    let folder = SMALL.replace("dataset: synthetic", "dataset: folder, path: \"Screen Shot\u{202f}1 – a\"");
    valid(&folder);
}

#[test]
fn wrong_types_give_help() {
    let optim = |value: &str| {
        let file = SMALL.replace("steps: 10", &format!("steps: 10, {value}"));
        helps(&file, &[]).join("|")
    };
    for (value, expected) in [
        ("flips: \"true\"", "remove the quotes"),
        ("flips: 'False'", "remove the quotes"),
        ("flips: yes", "did you mean `true`?"),
        ("flips: TruE", "did you mean `true`?"),
        ("lr: \"0.1\"", "remove the quotes"),
        ("batch_size: 1_000", "YAML 1.2 does not allow `_` in numbers: write `1000`"),
        ("lr: '0,1'", "use `.` as the decimal point: write `0.1`"),
        ("batch_size: '1,000'", "YAML does not allow `,` in numbers: write `1000`"),
        ("lr: fast", ""),
    ] {
        assert_eq!(optim(value), expected, "{value}");
    }
    for name in ["model: { zero_output: \"true\" }", "validation: { every: '10' }"] {
        let file = SMALL.replace("{ kind: train }", &format!("{{ kind: train, {name} }}"));
        assert_eq!(helps(&file, &[]), ["remove the quotes"], "{name}");
    }
    assert_eq!(helps(&swept("[true]"), &[]), ["quote it to make it a string: `\"true\"`"]);
    assert!(helps(&swept("[~]"), &[])[0].starts_with("quote `~` and `null` to make them strings"));
}

#[test]
fn keys_for_anchors_give_a_hint_about_defaults() {
    let text = format!("{SMALL}x-common: &c {{ steps: 2 }}\n");
    assert_eq!(messages(&text, &[]), ["unknown key `x-common`"]);
    assert!(helps(&text, &[])[0].contains("under `defaults`"));
}

#[test]
fn reserved_names_are_refused() {
    let stage = |name: &str| messages(&format!("{SMALL}  {name}: {{ kind: degrade, input: images }}\n"), &[]);
    for name in names::RESERVED_STAGES.iter().flat_map(|name| [name.to_string(), name.to_uppercase()]) {
        assert_eq!(stage(&name), [format!("`{name}` is not a valid stage name")]);
    }
    for name in names::RESERVED_PIPELINES {
        let file = SMALL.replace("name: small", &format!("name: {name}"));
        assert_eq!(messages(&file, &[]), [format!("`{name}` is not a valid pipeline name")]);
    }
    let long = "n".repeat(300);
    let file = format!("{SMALL}  {long}: {{ kind: degrade, input: images }}\n");
    assert_eq!(helps(&file, &[]), ["a name has at most 100 characters, this one has 300"]);
    // Instances with many axes stay within the maximum length of a file name.
    let axes: String = (0..30).map(|i| format!("env.LONG_NAME_OF_AXIS_{i}: [{}], ", "v".repeat(90))).collect();
    let file = format!("{SMALL}  x: {{ kind: command, command: [a], outputs: [o], matrix: {{ {axes} }} }}\n");
    for stage in &valid(&file).stages {
        assert_eq!(names::instance_name_error(&stage.name), None, "{}", stage.name);
    }
}

#[test]
fn misspelled_placeholders_are_refused() {
    let command = |text: &str| {
        let stage = format!(
            "  x: {{ kind: command, command: [cp, {text}], inputs: {{ x: pairs }}, outputs: [o], env: {{ A: b }} }}\n"
        );
        let found = parse_with(&format!("{SMALL}{stage}"), &[]);
        found.err().map(|errors| {
            assert_eq!(errors.errors().len(), 1, "{errors}");
            (errors.errors()[0].message.clone(), errors.errors()[0].help.clone().unwrap_or_default())
        })
    };
    for (text, meant) in [
        ("'{input.x}'", "`{inputs.x}`"),
        ("'--to={output.o}'", "`{outputs.o}`"),
        ("'{Seed}'", "`{seed}`"),
        ("'{input}'", "`{inputs.NAME}`"),
        ("'{input.none}'", "`{inputs.none}`"),
        ("'cat {input.x} >a'", "`{inputs.x}`"),
        ("'cat {inputs[x]}'", "`{inputs.x}`"),
    ] {
        let (message, help) = command(text).unwrap_or_else(|| panic!("{text} is accepted"));
        assert!(message.ends_with(" is not a placeholder"), "{message}");
        assert!(help.starts_with(&format!("did you mean {meant}?")), "{text}: {help}");
    }
    for text in ["'{inputs.x} {seed}'", "'echo ${SEED}'", "'print(f\"{input.shape} {Seed}\")'", "'{}'", "'{a: 1}'"] {
        assert_eq!(command(text), None, "{text}");
    }
}
