//! The processes of a run: signals that are ignored from the start, and programs that try to outlive their stage.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;

use common::{Folder, Pipeline, is_alive, signal, wait_until};

/// Returns a pipeline whose stage runs `script`. The script may write process ids to `PIDS`, a file in the test's
/// folder.
fn folder(script: &str, more: &str) -> Folder {
    let stage =
        format!("{{kind: command, command: [sh, script.sh, '{{outputs.o}}'], outputs: [o], files: [script.sh]{more}}}");
    let folder = Pipeline::new().stage("program", &stage).folder();
    folder.write("script.sh", script.replace("PIDS", folder.path().join("pids").to_str().unwrap()));
    folder
}

/// Returns the process ids that the script has written.
fn pids(folder: &Path) -> Vec<u32> {
    let text = fs::read_to_string(folder.join("pids")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Starts a process in the background, one in its own session, and one in another session whose parent has exited.
const ESCAPES: &str = "sleep 600 & echo $! >>PIDS
setsid sleep 600 & echo $! >>PIDS
setsid sh -c 'nohup sleep 600 >/dev/null 2>&1 & echo $! >>PIDS'
";

#[test]
fn descendants_are_killed_when_their_program_exits() {
    let folder = folder(&format!("{ESCAPES}echo ok >$1\n"), "");
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    let pids = pids(folder.path());
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|&pid| !is_alive(pid)), "{pids:?}");
}

#[test]
fn descendants_are_killed_when_a_stage_is_killed_with_or_without_its_run() {
    for kills_run in [true, false] {
        let folder = folder(&format!("{ESCAPES}sleep 600\n"), "");
        let run = folder.start(&["run", "p.yaml"]);
        wait_until("the program has started its processes", || pids(folder.path()).len() == 3);
        let stage = run.children()[0];
        if kills_run {
            run.signal("KILL");
        }
        signal(stage, "KILL").unwrap();
        let pids = pids(folder.path());
        wait_until("all processes are gone", || pids.iter().all(|&pid| !is_alive(pid)));
        run.wait();
    }
}

#[test]
fn descendants_are_killed_when_a_stage_is_interrupted() {
    let folder = folder(&format!("trap '' TERM\n{ESCAPES}sleep 600\n"), "");
    let run = folder.start(&["run", "p.yaml"]);
    wait_until("the program has started its processes", || pids(folder.path()).len() == 3);
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert!(pids(folder.path()).iter().all(|&pid| !is_alive(pid)));
}

#[test]
fn memory_of_processes_in_other_sessions_counts() {
    let script = "setsid sh -c 'head -c 80000000 /dev/zero | tail -c 80000000 | (sleep 600; cat)' & sleep 600\n";
    let folder = folder(script, ", resources: {memory: 60 MB}");
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("more than its limit of 60 MB (`resources.memory`)"), "{output}");
}

#[test]
fn signals_that_are_ignored_at_the_start_stay_ignored() {
    for name in ["HUP", "INT"] {
        let folder = folder("touch PIDS.started; sleep 1.5; echo ok >$1\n", "");
        let srpipe = env!("CARGO_BIN_EXE_srpipe");
        folder.write("start.sh", format!("trap '' {name}\nexec {srpipe} run p.yaml\n"));
        let mut child = std::process::Command::new("sh");
        let child = child.arg("start.sh").current_dir(folder.path()).env("XDG_CONFIG_HOME", folder.path());
        let mut child = child.env_remove("SRPIPE_REMOTE").stderr(std::process::Stdio::null()).spawn().unwrap();
        wait_until("the program runs", || folder.path().join("pids.started").exists());
        signal(child.id(), name).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
    }
}

#[test]
fn read_only_folders_of_a_program_are_removed() {
    let folder = folder("mkdir -p cache/x; touch cache/x/y; chmod 555 cache/x cache; echo ok >$1\n", "");
    // Root ignores permissions. As root, the test therefore runs a copy of the binary as another user. `cp` writes the
    // copy, because processes that other tests start would inherit a file that this process has open for writing. The
    // copy could not be executed while one of them has it open ("text file busy").
    let srpipe = folder.path().join("program");
    let copied =
        std::process::Command::new("cp").args([env!("CARGO_BIN_EXE_srpipe").as_ref(), srpipe.as_path()]).status();
    assert!(copied.unwrap().success());
    let mut command = std::process::Command::new(&srpipe);
    command.args(["run", "p.yaml"]).current_dir(folder.path()).env("XDG_CONFIG_HOME", folder.path());
    if rustix::process::geteuid().is_root() {
        let nobody = Some(65534);
        for name in ["", "p.yaml", "script.sh", "program"] {
            std::os::unix::fs::chown(folder.path().join(name), nobody, nobody).unwrap();
        }
        command.uid(65534).gid(65534);
    }
    let output = command.env_remove("SRPIPE_REMOTE").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let work = folder.runs().join("store/work");
    assert_eq!(fs::read_dir(work).unwrap().count(), 0);
}
