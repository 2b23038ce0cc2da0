//! Checks that hostile files are refused quickly.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn hostile_files_are_refused_quickly() {
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

/// Parses `file`, valid or not, and checks that the time and the length of the errors are bounded.
fn is_quick(what: &str, file: &str, flags: &Flags) {
    assert!(file.len() <= super::super::reader::MAX_BYTES, "{what}: {} bytes", file.len());
    let started = Instant::now();
    match parse("x.yaml", file, flags) {
        Ok(pipeline) => assert!(pipeline.stages.len() <= 100_000),
        Err(errors) => {
            let shown = errors.render(false);
            assert!(shown.len() < 400_000, "{what}: {} bytes", shown.len());
        }
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{what}: {:?}", started.elapsed());
}

#[test]
fn parsing_time_is_bounded() {
    let list = |n: usize, item: &dyn Fn(usize) -> String| (0..n).map(item).collect::<Vec<_>>().join(", ");
    let numbers = list(80_000, &|i| i.to_string());
    let matrix = |matrix: &str| SMALL.replace("{ kind: train }", &format!("{{ kind: train, matrix: {{ {matrix} }} }}"));
    let command = |rest: &str| format!("{SMALL}  x: {{ kind: command, {rest} }}\n");
    let names = list(30_000, &|i| format!("o{i}"));
    let files = [
        ("an axis of seeds", matrix(&format!("seed: [{numbers}]"))),
        ("an axis of one value", matrix(&format!("seed: [{}]", list(80_000, &|_| "1".to_string())))),
        (
            "many exclusions",
            matrix(&format!(
                "seed: [{}], exclude: [{}]",
                list(40_000, &|i| i.to_string()),
                list(30_000, &|i| format!("{{seed: {i}}}"))
            )),
        ),
        (
            "exclusions by many sets of axes",
            matrix(&format!(
                "{}, exclude: [{}]",
                list(16, &|i| format!("env.A{i}: [0, 1]")),
                list(4_000, &|i| {
                    let set = (0..12).filter(|bit| (i + 1) >> bit & 1 == 1).map(|bit| format!("env.A{bit}: 1"));
                    format!("{{{}}}", set.collect::<Vec<_>>().join(", "))
                })
            )),
        ),
        ("many inclusions", matrix(&format!("include: [{}]", list(60_000, &|i| format!("{{seed: {i}}}"))))),
        ("many axes", matrix(&list(50_000, &|i| format!("a{i}: [1]")))),
        ("a path with many dots", matrix(&format!("\"{}\": [1]", "a.".repeat(400_000) + "a"))),
        ("many outputs", command(&format!("command: [a], outputs: [{names}]"))),
        ("an output many times", command(&format!("command: [a], outputs: [{}]", list(80_000, &|_| "o".to_string())))),
        (
            "many placeholders",
            command(&format!("command: [{}], outputs: [{names}]", list(30_000, &|i| format!("'{{outputs.o{i}}}'")))),
        ),
        ("many files", command(&format!("command: [a], outputs: [o], files: [{names}]"))),
        ("braces", command(&format!("command: ['{}'], outputs: [o]", "{".repeat(1_000_000)))),
        (
            "a list times a matrix",
            command(&format!(
                "command: [{}], outputs: [o], matrix: {{ env.A: [{}] }}",
                list(40_000, &|_| "a".to_string()),
                list(40_000, &|i| i.to_string())
            )),
        ),
        (
            "a string times a matrix",
            command(&format!(
                "command: [{}], outputs: [o], matrix: {{ env.A: [{}] }}",
                "a".repeat(500_000),
                list(40_000, &|i| i.to_string())
            )),
        ),
        (
            "a list in defaults",
            format!(
                "name: x\ndefaults: {{ command: {{ command: [{}] }} }}\nstages:\n{}",
                list(60_000, &|_| "a".to_string()),
                (0..12_000).map(|i| format!("  s{i}: {{kind: command, outputs: [o]}}\n")).collect::<String>()
            ),
        ),
        (
            "arms that gather many samples",
            format!(
                "{}  more: {{ kind: compare, arms: {{ {} }} }}\n",
                matrix(&format!("seed: [{}]", list(30_000, &|i| i.to_string()))),
                list(20_000, &|i| format!("a{i}: samples"))
            ),
        ),
        (
            "claims about many runs",
            format!(
                "{}  more: {{ kind: compare, arms: {{ a: samples, b: samples }}, claims: {{ {} }} }}\n",
                matrix(&format!("seed: [{}]", list(20_000, &|i| i.to_string()))),
                list(10_000, &|i| format!("c{i}: {{ arm: a, control: b, margin: 1, endpoint: psnr_mean }}"))
            ),
        ),
        (
            "arms that are not samples",
            format!(
                "{SMALL}  x: {{ kind: command, command: [a], outputs: [{}] }}\n  more: {{ kind: compare, arms: {{ {} }} }}\n",
                list(10_000, &|i| format!("o{i}")),
                list(30_000, &|i| format!("a{i}: x"))
            ),
        ),
        (
            "a chain with many cycles",
            format!(
                "name: x\nstages:\n{}",
                (0..9_000)
                    .map(|i| format!(
                        "  s{i}: {{kind: command, command: [a], outputs: [o], inputs: {{a: s{}, b: s0}}}}\n",
                        i + 1
                    ))
                    .collect::<String>()
            ),
        ),
        ("errors on one line", format!("{{name: x, {}}}", list(40_000, &|i| format!("key_number_{i}: 1")))),
        (
            "stages with errors on one line",
            format!("{{name: x, stages: {{{}}}}}", list(25_000, &|i| format!("s{i}: {{kind: train{i}, x: 1}}"))),
        ),
        (
            "values with errors on one line",
            command(&format!("command: [{}], outputs: [o]", list(100_000, &|_| "{}".to_string()))),
        ),
        ("aliases", command(&format!("command: [&a x, {}], outputs: [o]", list(100_000, &|_| "*a".to_string())))),
        ("anchors", command(&format!("command: [{}], outputs: [o]", list(60_000, &|i| format!("&a{i} x"))))),
    ];
    for (what, file) in &files {
        is_quick(what, file, &Flags::default());
    }
}

#[test]
fn hostile_flags_are_parsed_quickly() {
    let n = 120_000;
    let repeated = |unit: &str| unit.repeat(n / unit.len());
    for value in ["[", "{", "a.", "=", "#", " #", "'", "\"", ",", "1,", "&a ", "{a: ", "~", "\u{e000}#", "\u{e9}", "- "]
    {
        let value = repeated(value);
        for flag in [
            value.clone(),
            format!("stages.model.optim.lr={value}"),
            format!("{value}=1"),
            format!("stages.{value}.x={value}"),
        ] {
            is_quick("set", SMALL, &Flags { set: vec![flag.clone()], sweep: vec![] });
            is_quick("sweep", SMALL, &Flags { set: vec![], sweep: vec![flag] });
        }
    }
    let many = |flag: &dyn Fn(usize) -> String| (0..20_000).map(flag).collect::<Vec<_>>();
    for flags in [
        many(&|i| format!("stages.model.seed={i}")),
        many(&|i| format!("stages.s{i}.seed=1")),
        many(&|i| format!("stages.model.a{i}=1")),
        many(&|i| format!("x{i}")),
    ] {
        is_quick("many sets", SMALL, &Flags { set: flags.clone(), sweep: vec![] });
        is_quick("many sweeps", SMALL, &Flags { set: vec![], sweep: flags });
    }
}

#[test]
fn hostile_files_get_specific_errors() {
    let bomb = (1..40)
        .fold("a0: &a0 [x]\n".to_string(), |text, i| text + &format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1));
    for (text, message) in [
        (format!("a: {}{}", "[".repeat(64), "]".repeat(64)), "nested more than 64 levels deep"),
        (bomb, "more than 200000 values, counting each use of an alias"),
        ("a: &a [*a]".to_string(), "this alias refers to a value that contains it"),
        ("a: 1\n? [x]\n: 2".to_string(), "a key must be a string, not a list or mapping"),
        ("a: &a x\n*a : 2".to_string(), "a key must be a string, not an alias"),
        ("a: !mine x".to_string(), "custom tags (`!name`) are not supported"),
        ("<<: x".to_string(), "`<<` can only merge mappings"),
    ] {
        assert_eq!(messages(&text, &[]), [message]);
    }
    // One level less is valid YAML.
    let deep = format!("a: {}{}", "[".repeat(63), "]".repeat(63));
    assert!(messages(&deep, &[]).contains(&"unknown key `a`".to_string()));
}

#[test]
fn large_pipelines_are_parsed_quickly() {
    let stages = (0..5000).map(|i| format!("  m{i}: {{ kind: train, seed: {i} }}\n")).collect::<String>();
    let started = Instant::now();
    assert_eq!(valid(&format!("{SMALL}{stages}")).stages.len(), 5005);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn files_that_are_not_utf_8_or_too_large_are_refused() {
    let message = |bytes: &[u8]| parse("x.yaml", bytes, &Flags::default()).unwrap_err().to_string();
    assert_eq!(
        message(b"name: a\nstages: \xff\n"),
        "error: x.yaml: line 2 is not valid UTF-8\nhelp: save the file as UTF-8"
    );
    assert_eq!(message(b"\xff\xfen\0"), "error: x.yaml: the file is encoded as UTF-16\nhelp: save the file as UTF-8");
    let too_large = |file: &str, line: usize| {
        format!(
            "error: {file}: the file is larger than 1 MiB, the limit for a pipeline file (line {line})\n\
             help: merge stages that differ in a few values into one stage with a `matrix`"
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
