//! Unusual environments: output that cannot be written, names that are not UTF-8, deleted results.

mod common;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::{Folder, Pipeline};

const COMMAND_STAGE: &str = "{kind: command, command: [sh, -c, 'echo said; echo \"{\\\"loss\\\": 1}\" >outputs/o.json'], outputs: [o.json], metrics: o.json}";

/// Every command that prints something, in a folder with a run of `p.yaml`. All of them succeed.
const COMMANDS: [&[&str]; 34] = [
    &["--help"],
    &["-h"],
    &["--version"],
    &["help", "run"],
    &["run", "--help"],
    &["check", "p.yaml"],
    &["check", "p.yaml", "--json"],
    &["plan", "p.yaml"],
    &["plan", "p.yaml", "--json"],
    &["why", "p.yaml", "pairs"],
    &["why", "p.yaml", "pairs", "--json"],
    &["graph", "p.yaml"],
    &["graph", "p.yaml", "--format", "dot"],
    &["graph", "p.yaml", "--format", "mermaid"],
    &["graph", "p.yaml", "--json"],
    &["status"],
    &["status", "--json"],
    &["status", "p.yaml"],
    &["status", "p", "--json"],
    &["runs"],
    &["runs", "--json"],
    &["diff", "p", "p"],
    &["diff", "p", "p", "--json"],
    &["logs", "say"],
    &["logs", "say", "-f"],
    &["logs", "say", "--json"],
    &["schema"],
    &["schema", "--markdown"],
    &["completions", "bash"],
    &["verify"],
    &["gc", "--dry-run"],
    &["report", "-o", "-"],
    &["run", "p.yaml"],
    &["run", "p.yaml", "--json"],
];

/// Returns a folder with a finished run.
fn with_a_run() -> Folder {
    let folder = Pipeline::small().stage("say", COMMAND_STAGE).folder();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    folder
}

/// Returns a file that cannot be written, like one on a full disk.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_full_disk_on_stdout_is_an_error() {
    let folder = with_a_run();
    for args in COMMANDS {
        let output = folder.command(args).stdin(Stdio::null()).stdout(full()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert_eq!(
            text.matches("error: cannot write the output: No space left on device").count(),
            1,
            "{args:?}: {text}"
        );
        assert!(!text.contains("panicked"), "{args:?}: {text}");
    }
    // The run itself completes.
    let output = folder.command(&["run", "p.yaml", "--json", "--force", "images"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(folder.run(&["--json"]).finished()["state"], "ok");
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    let folder = with_a_run();
    for args in COMMANDS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = folder.command(args).stdin(Stdio::null()).stdout(writer).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.status.signal()), (Some(0), None), "{args:?}: {text}");
        assert!(!text.contains("error") && !text.contains("panicked"), "{args:?}: {text}");
    }
}

#[test]
fn unwritable_stderr_does_not_change_the_exit_code() {
    let folder = with_a_run();
    let wrong: [&[&str]; 4] = [&["run", "none.yaml"], &["chek"], &["run", "p.yaml", "--set", "x"], &["logs", "none"]];
    for args in wrong {
        let status = folder.command(args).stdin(Stdio::null()).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{args:?}");
    }
    for args in [&["run", "p.yaml", "--force", "say"][..], &["status"], &["runs"], &["init", "--force"]] {
        let status = folder.command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{args:?}");
    }
    // The log of a stage is the stderr of its process.
    let exec = folder.command(&["exec"]).stdin(Stdio::null()).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(exec.code(), Some(1));
}

/// Returns a name that may not be UTF-8.
fn name(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// Runs `srpipe` in a folder, with non-UTF-8 values of `HOME`, `TMPDIR` and other variables.
fn in_folder(folder: &std::path::Path, args: &[&OsStr]) -> (Option<i32>, String, String) {
    let strange = folder.join(name(b"home\xff"));
    std::fs::create_dir_all(&strange).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_srpipe"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).env_remove("SRPIPE_RUNS").env_remove("SRPIPE_REMOTE");
    for variable in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "HOSTNAME", "USER", "BROWSER"] {
        command.env(variable, &strange);
    }
    command.env("CUDA_VISIBLE_DEVICES", name(b"\xff")).env("SLURM_JOB_ID", name(b"\xff")).env("LANG", name(b"\xff"));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    (output.status.code(), text(&output.stdout), stderr)
}

#[test]
fn paths_that_are_not_utf8_work() {
    let folder = Pipeline::small().stage("say", COMMAND_STAGE).folder();
    let inside = folder.path().join(name(b"d\xff"));
    std::fs::create_dir(&inside).unwrap();
    let (file, runs) = (name(b"p\xff.yaml"), name(b"r\xff"));
    std::fs::copy(folder.path().join("p.yaml"), inside.join(&file)).unwrap();
    let run = |args: &[&OsStr]| in_folder(&inside, &[&[OsStr::new("--runs-dir"), &runs], args].concat());
    let text = OsStr::new;

    let (code, _, stderr) = run(&[text("run"), &file]);
    assert_eq!(code, Some(0), "{stderr}");
    let summary = inside.join(&runs).join("p/latest/say/o.json");
    assert!(std::fs::read_to_string(summary).unwrap().contains("loss"));
    let (code, stdout, stderr) = run(&[text("run"), &file, text("--json")]);
    assert!(code == Some(0) && stdout.contains("run_finished"), "{stdout}{stderr}");
    for args in [
        &["check"][..],
        &["check", "--json"],
        &["plan"],
        &["plan", "--json"],
        &["graph"],
        &["status"],
        &["status", "--json"],
        &["run", "--force", "say", "--json"],
        &["run", "--dry-run"],
    ] {
        let args: Vec<&OsStr> = args[..1]
            .iter()
            .map(|a| text(a))
            .chain([file.as_os_str()])
            .chain(args[1..].iter().map(|a| text(a)))
            .collect();
        // Stage and run names are also arguments, but must be text.
        let (code, stdout, stderr) = run(&args);
        let expected = if args[0] == "status" { 2 } else { 0 };
        assert_eq!(code, Some(expected), "{args:?}: {stdout}{stderr}");
    }
    for args in [
        &["runs"][..],
        &["runs", "--json"],
        &["status"],
        &["status", "--json"],
        &["status", "p"],
        &["logs", "say"],
        &["logs", "say", "--json"],
        &["report"],
        &["report", "--json"],
        &["verify"],
        &["gc"],
        &["pin", "p"],
    ] {
        let (code, stdout, stderr) = run(&args.iter().map(|a| text(a)).collect::<Vec<_>>());
        assert_eq!(code, Some(0), "{args:?}: {stdout}{stderr}");
    }
    let (archive, other) = (name(b"e\xff.tar"), name(b"other\xff"));
    assert_eq!(run(&[text("export"), text("p"), &archive, text("--json")]).0, Some(0));
    let import = in_folder(&inside, &[text("import"), &archive, text("--runs-dir"), &other, text("--json")]);
    assert_eq!(import.0, Some(0), "{}{}", import.1, import.2);
    let init = run(&[text("init"), &name(b"study\xff"), text("--json")]);
    assert_eq!(init.0, Some(0), "{}", init.2);
    let init = run(&[text("init"), &name(b"other study\xff")]);
    assert!(init.2.contains("cd $'other study\\xff'"), "{}", init.2);
    // These arguments must be UTF-8.
    for args in [
        [text("run"), &file, text("--set"), &name(b"seed=\xff")],
        [text("runs"), text("--filter"), &name(b"\xff"), text("--all")],
    ] {
        assert_eq!(run(&args).0, Some(2));
    }
    assert_eq!(run(&[text("report"), text("-o"), &name(b"o\xff.html"), text("--json")]).0, Some(0));
}

#[test]
fn a_failed_run_names_its_log_and_its_command() {
    let folder = Pipeline::new().stage("bad", "{kind: command, command: [sh, -c, 'exit 3'], outputs: [o]}").folder();
    let file = name(b"p \xff.yaml");
    std::fs::rename(folder.path().join("p.yaml"), folder.path().join(&file)).unwrap();
    let (code, stdout, stderr) = in_folder(folder.path(), &[OsStr::new("run"), &file, OsStr::new("--json")]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let (code, _, stderr) = in_folder(folder.path(), &[OsStr::new("run"), &file]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("`srpipe status $'p \\xff.yaml'`"), "{stderr}");
}

#[test]
fn image_names_that_are_not_utf8_work() {
    let folder = Pipeline::new().stage("images", "{kind: fetch, dataset: folder, path: photos, size: 8}").folder();
    let photos = folder.path().join("photos");
    std::fs::create_dir_all(photos.join(name(b"sub\xff"))).unwrap();
    let mut picture = vec![];
    for i in 0..6u8 {
        picture.clear();
        let mut encoder = png::Encoder::new(&mut picture, 8, 8);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&[i; 192]).unwrap();
        let file =
            if i % 2 == 0 { name(&[b'a' + i, 0xff, b'.', b'p', b'n', b'g']) } else { format!("sub/{i}.png").into() };
        let path = match i % 2 {
            0 => photos.join(file),
            _ => photos.join(name(b"sub\xff")).join(format!("{i}.png")),
        };
        std::fs::write(path, &picture).unwrap();
    }
    std::fs::write(photos.join(name(b"broken\xff.png")), b"no picture").unwrap();
    let failed = folder.run(&[]);
    assert!(failed.code == Some(1) && !failed.stderr.contains("panicked"), "{failed}");
    let output = folder.run(&["--set", "stages.images.broken=skip"]);
    assert_eq!(output.code, Some(0), "{output}");
    let again = folder.run(&["--set", "stages.images.broken=skip", "--json"]);
    assert_eq!(again.finished()["stages"]["images"], "cached", "{again}");
}

#[test]
fn runs_are_listed_after_their_results_were_deleted() {
    let folder = with_a_run();
    std::fs::remove_dir_all(folder.runs().join("store")).unwrap();
    for args in [&["runs"][..], &["status"], &["status", "p"], &["status", "p.yaml"]] {
        let output = folder.srpipe(args);
        assert_eq!(output.code, Some(0), "{args:?}: {output}");
        assert!(output.stdout.contains("ok"), "{args:?}: {output}");
        assert!(output.stderr.contains("the results of these runs are missing"), "{args:?}: {output}");
        assert!(output.stderr.contains("The next run recomputes them"), "{args:?}: {output}");
    }
    assert!(folder.srpipe(&["runs", "--json"]).stdout.contains("\"state\": \"ok\""));
    for args in
        [&["logs", "say"][..], &["verify"], &["report"], &["diff", "p", "p"], &["gc", "--dry-run"], &["plan", "p.yaml"]]
    {
        let output = folder.srpipe(args);
        assert!(output.code.is_some_and(|code| code <= 2) && !output.stderr.contains("panicked"), "{args:?}: {output}");
        assert!(!output.stderr.contains("no runs"), "{args:?}: {output}");
    }
    let again = folder.run(&["--json"]);
    assert_eq!(again.finished()["stages"]["images"], "ran", "{again}");
    assert!(!folder.srpipe(&["runs"]).stderr.contains("are missing"));
    // Without any runs the output differs.
    std::fs::remove_dir_all(folder.runs()).unwrap();
    assert_eq!(folder.srpipe(&["runs"]).stdout, "no runs\n");
}

#[test]
fn hostile_arguments_are_handled() {
    let folder = with_a_run();
    let long = "x".repeat(100_000);
    let words = ["", "-", "..", "/", "p/../..", "\u{1b}[31m", "a\nb", &long, "[", "p[", "🙂", "=", "#"];
    let commands: [&[&str]; 24] = [
        &["run"],
        &["check"],
        &["plan"],
        &["graph"],
        &["status"],
        &["logs"],
        &["report"],
        &["cancel"],
        &["pin"],
        &["runs"],
        &["runs", "--filter"],
        &["runs", "--sort"],
        &["why", "p.yaml"],
        &["diff", "p"],
        &["run", "p.yaml", "--set"],
        &["run", "p.yaml", "--sweep"],
        &["run", "p.yaml", "--only"],
        &["run", "p.yaml", "--device"],
        &["run", "p.yaml", "--jobs"],
        &["gc", "--dry-run", "--max-size"],
        &["import"],
        &["upscale", "--model", "m", "-o", "o.png"],
        &["launch"],
        &["exec", "--job"],
    ];
    for word in words {
        for args in commands {
            let start = std::time::Instant::now();
            let output = folder.srpipe(&[args, &[word]].concat());
            let shown = format!("{args:?} {:.20}: {:.500}", word, output.stderr);
            assert!(matches!(output.code, Some(0..=2 | 126 | 127)), "{:?} {shown}", output.code);
            assert!(!output.stderr.contains("panicked") && output.stderr.len() < 400_000, "{shown}");
            assert!(start.elapsed() < common::TIMEOUT / 4, "{shown}");
        }
    }
}

/// These macros and functions panic if output cannot be written or arguments are not UTF-8.
#[test]
fn the_source_does_not_print_or_read_arguments_in_ways_that_panic() {
    const FORBIDDEN: [&str; 6] = ["println!(", "eprintln!(", " print!(", "eprint!(", "dbg!(", "env::args()"];
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let (mut files, mut found) = (0, vec![]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines();
                let is_code = |line: &&str| !line.trim_start().starts_with("//");
                let wrong = code.filter(is_code).filter(|line| FORBIDDEN.iter().any(|word| line.contains(word)));
                found.extend(wrong.map(|line| format!("{}: {}", path.display(), line.trim())));
            }
        }
    }
    assert!(files > 100);
    assert!(found.is_empty(), "{found:#?}");
}
