//! `push`, `import` and `gc` with failing system calls, or killed during a system call: repeating the command gives the
//! same files as an undisturbed run.
//!
//! Needs strace, whose path is in `SRPIPE_TEST_STRACE`; `.ci/run` installs it. `SRPIPE_TEST_FAULTS=1` tries every
//! system call instead of every 7th.

mod common;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Folder, Pipeline, sha256};

/// All system calls that change files.
const CALLS: [&str; 18] = [
    "write",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "fsync",
    "fdatasync",
    "ftruncate",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "rmdir",
    "symlink",
    "symlinkat",
    "fchmod",
    "utimensat",
    "copy_file_range",
];
/// The faults to inject, in strace's syntax.
const FAULTS: [&str; 3] = ["error=EIO", "error=ENOSPC", "signal=KILL"];

/// Copies a folder with its permissions and links.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// Returns the content of the files below `folder` and the targets of links, without temporary files and logs.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut unvisited = vec![folder.to_path_buf()];
    while let Some(path) = unvisited.pop() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if name.starts_with(".tmp-") || ["logs", "gc.lock", ".lock", "config.yaml"].contains(&name.as_str()) {
            continue;
        }
        let content = if metadata.is_dir() {
            unvisited.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        } else if metadata.is_symlink() {
            std::fs::read_link(&path).unwrap().display().to_string()
        } else {
            sha256(&std::fs::read(&path).unwrap())
        };
        found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), content);
    }
    found
}

/// Runs a command in copies of `prepared` with one fault each, then again without a fault; `result` is the folder that
/// it changes.
fn try_faults(prepared: &Path, args: &[&str], result: &str) {
    let Some(strace) = std::env::var_os("SRPIPE_TEST_STRACE") else {
        eprintln!("skipped: SRPIPE_TEST_STRACE is not set to the path of strace");
        return;
    };
    let every = if std::env::var_os("SRPIPE_TEST_FAULTS").is_some() { 1 } else { 7 };
    let folder = tempfile::tempdir().unwrap();
    let fresh = |name: &str| {
        let to = folder.path().join(name);
        if to.exists() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        copy(prepared, &to);
        to
    };
    let srpipe = |folder: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_srpipe"));
        command
            .args(args)
            .current_dir(folder)
            .env("XDG_CONFIG_HOME", folder)
            .env("SRPIPE_REMOTE", folder.join("cache"));
        command
    };
    let expected = {
        let folder = fresh("expected");
        assert!(srpipe(&folder).stdout(Stdio::null()).status().unwrap().success());
        files(&folder.join(result))
    };
    assert!(!expected.is_empty());
    let mut tried = 0;
    // strace counts the calls of each kind separately.
    for (call, fault) in CALLS.iter().flat_map(|call| FAULTS.iter().map(move |fault| (call, fault))) {
        for n in (1..).step_by(every) {
            let folder = fresh("faulty");
            let log = folder.join("strace.log");
            let plain = srpipe(&folder);
            let mut traced = Command::new(&strace);
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{fault}:when={n}"));
            traced.args(["-f", "-qq", "-e", &trace, "-e", &inject, "-o"]).arg(&log);
            traced.arg(plain.get_program()).args(plain.get_args()).current_dir(&folder);
            traced.env("XDG_CONFIG_HOME", &folder).env("SRPIPE_REMOTE", folder.join("cache"));
            let output = traced.output().unwrap();
            let trace = std::fs::read_to_string(&log).unwrap_or_default();
            let was_killed = output.status.signal() == Some(9) || trace.contains("killed by SIGKILL");
            if !trace.contains("INJECTED") && !was_killed {
                break;
            }
            std::fs::remove_file(&log).unwrap();
            tried += 1;
            let text = String::from_utf8_lossy(&output.stderr);
            let what = format!("{fault} in {call} number {n}");
            assert!(!text.contains("panicked"), "{what}: {text}");
            let again = srpipe(&folder).output().unwrap();
            let text = format!("{what}: {text}\nagain: {}", String::from_utf8_lossy(&again.stderr));
            assert!(again.status.success(), "{text}");
            assert_eq!(files(&folder.join(result)), expected, "{text}");
        }
    }
    assert!(tried > 20, "{tried} faults");
    println!("{args:?}: {tried} faults");
}

/// Returns a folder with a finished run.
fn finished() -> Folder {
    let folder = Pipeline::small().folder();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    folder
}

#[test]
fn repeating_a_failed_push_completes_it() {
    let folder = finished();
    try_faults(folder.path(), &["push", "p"], "cache");
}

#[test]
fn repeating_a_failed_import_completes_it() {
    let folder = finished();
    let output = folder.srpipe(&["export", "p", "p.tar"]);
    assert_eq!(output.code, Some(0), "{output}");
    let empty = tempfile::tempdir().unwrap();
    std::fs::copy(folder.path().join("p.tar"), empty.path().join("p.tar")).unwrap();
    try_faults(empty.path(), &["import", "p.tar"], "runs");
}

#[test]
fn repeating_a_failed_gc_completes_it() {
    let folder = finished();
    for seed in ["2", "3"] {
        let output = folder.run(&["--set", &format!("seed={seed}")]);
        assert_eq!(output.code, Some(0), "{output}");
    }
    try_faults(folder.path(), &["gc", "--keep", "1"], "runs");
}
