//! Random and mutated files: parsing them never causes a panic.

use proptest::prelude::*;

use super::*;

/// Parses a file and renders its errors. If it is valid, checks that the pipeline is consistent.
fn survives(text: &[u8], set: &[String]) {
    // Use the same values as sweeps.
    for sweep in [&[], set] {
        survives_flags(text, &Flags { set: set.to_vec(), sweep: sweep.to_vec() });
    }
}

fn survives_flags(text: &[u8], flags: &Flags) {
    match parse("x.yaml", text, flags) {
        Err(errors) => {
            assert!(!errors.errors().is_empty());
            for error in errors.errors() {
                assert!(!error.message.contains(|c: char| c.is_control()), "{:?}", error.message);
                errors.position(error);
            }
            errors.render(true);
            errors.render(false);
        }
        Ok(pipeline) => {
            let again = parse("again.yaml", pipeline.resolved(), &Flags::default()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(again.resolved(), pipeline.resolved());
            for stage in &pipeline.stages {
                assert!(pipeline.position(stage, "").is_some());
            }
        }
    }
}

/// Random sequences of characters and words that have a meaning in YAML or in pipeline files.
fn yaml_like() -> impl Strategy<Value = String> {
    let tokens = [
        "name",
        "stages",
        "defaults",
        "train",
        "kind",
        "fetch",
        "degrade",
        "optim",
        "steps",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "&a",
        "*a",
        "<<: ",
        "!",
        "!!str ",
        "|",
        ">",
        "'",
        "\"",
        "#",
        "%",
        "---\n",
        "...\n",
        "? ",
        "~",
        "null",
        "1e3",
        ".nan",
        "-",
        "\t",
        "\u{0}",
        "\u{7f}",
        "ü",
        "\u{2028}",
        "\r",
        "\\",
        "x",
        "1",
        " ",
        "@",
        "`",
        "\u{FEFF}",
        "%YAML 1.2\n",
        "%TAG ! x\n",
        " #",
        "<<: [*a, *a]",
        "\u{a0}",
        "–",
        "“",
        "\u{200b}",
        "3.10",
        "01",
        "0x10",
        "1_000",
        "1e999",
        "NaN",
        "yes",
        "matrix: {seed: [",
        "exclude",
        "report.html",
        "{input.x}",
        "{outputs.",
        "\u{e000}",
    ];
    prop::collection::vec(prop::sample::select(tokens.to_vec()), 0..60).prop_map(|words| words.concat())
}

/// A pipeline of the repository with pieces removed, duplicated, swapped or inserted.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (0usize..5, any::<prop::sample::Index>(), any::<prop::sample::Index>(), yaml_like(), any::<u8>());
    (prop::sample::select(FILES.to_vec()), prop::collection::vec(edit, 1..6)).prop_map(|(file, edits)| {
        let mut bytes = file.as_bytes().to_vec();
        for (what, at, to, piece, byte) in edits {
            let (at, to) = (at.index(bytes.len()), to.index(bytes.len()));
            let (from, to) = (at.min(to), at.max(to).min(at.min(to) + 40));
            match what {
                0 => drop(bytes.drain(from..to)),
                1 => drop(bytes.splice(from..from, bytes[from..to].to_vec()).count()),
                2 => drop(bytes.splice(from..from, piece.bytes().take(30)).count()),
                3 => bytes[from] = byte,
                _ => drop(bytes.splice(from..to, piece.bytes().take(8)).count()),
            }
            if bytes.is_empty() {
                bytes.push(b' ');
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "\\PC{0,200}|(?s).{0,200}") {
        survives(text.as_bytes(), &[]);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&bytes, &[]);
    }

    #[test]
    fn any_tokens(text in yaml_like()) {
        survives(text.as_bytes(), &[]);
    }

    #[test]
    fn any_stage(text in yaml_like()) {
        survives(format!("{SMALL}  x: {{ kind: train, {text} }}\n").as_bytes(), &[]);
    }

    #[test]
    fn any_mutation(bytes in mutated()) {
        survives(&bytes, &[]);
    }

    #[test]
    fn any_description_and_path(text in "(?s)[ \\n\\t:#'\"|>~&*!%@`\\-?a-f0-9.üé\u{2028}\u{85}\u{FEFF}\\\\]{0,12}|(?s).{0,20}") {
        let quoted = serde_json::to_string(&text).unwrap();
        survives(format!("{SMALL}description: {quoted}\n").as_bytes(), &[]);
        let url = serde_json::to_string(&format!("file:{text}")).unwrap();
        let file = SMALL.replace("dataset: synthetic", &format!("dataset: cifar10, url: {url}"));
        survives(file.as_bytes(), &[]);
    }

    #[test]
    fn any_axis(values in prop::collection::vec("[0-9a-fxo_.eE+~#' -]{1,6}|true|null|.inf", 1..5)) {
        let list = values.iter().map(|v| serde_json::to_string(v).unwrap()).collect::<Vec<_>>().join(", ");
        let plain = values.join(", ");
        for list in [list, plain] {
            let axes = format!("env.V: [{list}], resources.cpus: [{list}]");
            let stage = format!("  x: {{ kind: command, command: [a, {list}], outputs: [o], matrix: {{ {axes} }} }}\n");
            survives(format!("{SMALL}{stage}").as_bytes(), &[]);
            let stage = format!("  x: {{ kind: command, command: [a, {list}], outputs: [o], matrix: {{ env.V: [{list}] }} }}\n");
            survives(format!("{SMALL}{stage}").as_bytes(), &[]);
        }
    }

    #[test]
    fn any_setting(set in "(?s).{0,40}", value in yaml_like()) {
        survives(SMALL.as_bytes(), &[set]);
        survives(SMALL.as_bytes(), &[format!("stages.model.optim={value}"), format!("{value}=1")]);
    }
}
