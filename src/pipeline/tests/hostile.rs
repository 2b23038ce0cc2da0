//! Files that nobody means: they are refused, quickly, and never stop the program.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Refused or not, the answer comes and can be shown; where a pipeline comes out, it is a consistent one.
fn survives(text: &[u8], set: &[String]) {
    // What a flag may set, another may sweep.
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

/// Something like YAML: the characters and words that mean something to it, in any order.
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
    ];
    prop::collection::vec(prop::sample::select(tokens.to_vec()), 0..60).prop_map(|words| words.concat())
}

/// One of the repository's files with pieces cut, doubled, exchanged or inserted.
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
    fn any_setting(set in "(?s).{0,40}", value in yaml_like()) {
        survives(SMALL.as_bytes(), &[set]);
        survives(SMALL.as_bytes(), &[format!("stages.model.optim={value}"), format!("{value}=1")]);
    }
}

#[test]
fn monsters_are_refused_quickly() {
    let n = super::super::reader::MAX_BYTES - 100;
    let repeated = |unit: &str| unit.repeat(n / unit.len());
    let lines = |line: &dyn Fn(usize) -> String| (0..120_000).map(line).collect::<String>();
    let bomb = "a: &a0 [x]\n".to_string()
        + &(1..40).map(|i| format!("b{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1)).collect::<String>();
    let monsters = [
        repeated("["),
        repeated("{"),
        repeated("- "),
        repeated("? "),
        repeated("{a: "),
        repeated("&a "),
        repeated("!a "),
        repeated("'"),
        repeated("\""),
        repeated("a"),
        repeated("a "),
        repeated("a: "),
        repeated("#"),
        repeated("\n"),
        repeated("|\n"),
        repeated("a\n"),
        repeated("---\n"),
        repeated("[],"),
        repeated("\u{e9}"),
        format!("[{}]", repeated("a,")),
        format!("name: {}", repeated("\\u{1b}")),
        (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect(),
        lines(&|i| format!("k{i}: 1\n")),
        lines(&|_| "k: 1\n".to_string()),
        "name: x\nstages:\n".to_string()
            + &(0..30_000).map(|i| format!("  s{i}: {{kind: train, data: s{}}}\n", i + 1)).collect::<String>(),
        "name: x\nstages:\n".to_string()
            + &(0..30_000).map(|i| format!("  s{i}: {{kind: degrade, input: nope{i}}}\n")).collect::<String>(),
        bomb,
        "a: &a [*a]".to_string(),
        "a: &a {<<: *a}".to_string(),
    ];
    for monster in monsters {
        let started = Instant::now();
        let errors = parse("x.yaml", &monster, &Flags::default()).expect_err("refused");
        let shown = errors.render(false);
        let head: String = monster.chars().take(20).collect();
        assert!(started.elapsed() < Duration::from_secs(5), "{head:?}: {:?}", started.elapsed());
        assert!(shown.len() < 200_000, "{head:?}: {} bytes", shown.len());
    }
}

#[test]
fn monsters_are_told_why() {
    let bomb = (1..40)
        .fold("a0: &a0 [x]\n".to_string(), |text, i| text + &format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1));
    for (text, message) in [
        (format!("a: {}{}", "[".repeat(64), "]".repeat(64)), "nested more than 64 deep"),
        (bomb, "more than 200000 values, those that aliases repeat counted"),
        ("a: &a [*a]".to_string(), "this alias stands within the very value that it names"),
        ("a: 1\n? [x]\n: 2".to_string(), "a key must be a word, not a list or a mapping"),
        ("a: &a x\n*a : 2".to_string(), "a key must be a word, not an alias"),
        ("a: !mine x".to_string(), "tags of one's own (`!name`) have no meaning in a pipeline"),
        ("<<: x".to_string(), "`<<` merges mappings"),
    ] {
        assert_eq!(messages(&text, &[]), [message]);
    }
    // One level less is a matter of the pipeline's keys, not of YAML.
    let deep = format!("a: {}{}", "[".repeat(63), "]".repeat(63));
    assert!(messages(&deep, &[]).contains(&"unknown key `a`".to_string()));
}

#[test]
fn a_large_pipeline_is_read_quickly() {
    let stages = (0..5000).map(|i| format!("  m{i}: {{ kind: train, seed: {i} }}\n")).collect::<String>();
    let started = Instant::now();
    assert_eq!(valid(&format!("{SMALL}{stages}")).stages.len(), 5005);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn what_is_no_text_is_refused() {
    let message = |bytes: &[u8]| parse("x.yaml", bytes, &Flags::default()).unwrap_err().to_string();
    assert_eq!(message(b"name: a\nstages: \xff\n"), "error: x.yaml: line 2 is not UTF-8\nhelp: save the file as UTF-8");
    assert_eq!(message(b"\xff\xfen\0"), "error: x.yaml: the text is UTF-16\nhelp: save the file as UTF-8");
    let too_large = |file: &str, line: usize| {
        format!(
            "error: {file}: line {line} is beyond 1 MiB, the most that a pipeline file has\n\
             help: stages that differ in a few values are one stage with a `matrix`"
        )
    };
    assert_eq!(message(&vec![b'#'; 10 << 20]), too_large("x.yaml", 1));
    assert_eq!(message("a: 1234\n".repeat(10 << 17).as_bytes()), too_large("x.yaml", (1 << 17) + 1));
    #[cfg(unix)]
    assert_eq!(
        load(std::path::Path::new("/dev/zero"), &Flags::default()).unwrap_err().to_string(),
        too_large("/dev/zero", 1)
    );
}
