//! Named pipes and links in place of files under `runs`: no command hangs, follows a link or writes through it.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Folder, Pipeline};

/// Commands that read or write under `runs`. `run` is last, because it repairs damage.
const COMMANDS: [&[&str]; 8] = [
    &["status"],
    &["status", "p.yaml"],
    &["runs", "--all"],
    &["logs", "model"],
    &["verify"],
    &["report", "p"],
    &["gc", "--dry-run"],
    &["run", "p.yaml"],
];

/// Returns a folder with a finished run.
fn finished() -> Folder {
    let folder = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 8, validation: 4, test: 2}")
        .stage("pairs", "{kind: degrade, input: images}")
        .stage("model", "{kind: train, data: pairs, model: {base_channels: 8, channel_mults: [1]}, optim: {steps: 1}}")
        .stage("files", "{kind: command, command: [sh, -c, 'echo a >{outputs.o}'], outputs: [o], files: [p.yaml]}")
        .folder();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    folder
}

/// Returns the files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut unvisited = vec![folder.to_path_buf()];
    while let Some(path) = unvisited.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            unvisited.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if metadata.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Replaces each file in turn and runs all commands. Calls `check` with a description after each command.
fn replace_each(replace: impl Fn(&Path), check: impl Fn(&str)) {
    let prepared = finished();
    let folder = finished();
    fs::copy(prepared.path().join("p.yaml"), folder.path().join("p.yaml")).unwrap();
    for path in files(&prepared.runs()) {
        fs::remove_dir_all(folder.runs()).unwrap();
        assert!(Command::new("cp").arg("-a").args([prepared.runs(), folder.runs()]).status().unwrap().success());
        let relative = path.strip_prefix(prepared.runs()).unwrap();
        let path = folder.runs().join(relative);
        fs::remove_file(&path).unwrap();
        replace(&path);
        for args in COMMANDS {
            // Panics after a timeout if the command hangs.
            let output = folder.srpipe(args);
            let what = format!("{args:?} with another file at {}", relative.display());
            assert!(matches!(output.code, Some(0..=2)), "{what}: {output}");
            assert!(!output.stderr.contains("panicked"), "{what}: {output}");
            check(&what);
        }
    }
}

#[test]
fn no_command_hangs_at_a_named_pipe() {
    let make = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    replace_each(make, |_| {});
}

#[test]
fn no_command_writes_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let check = |what: &str| assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{what}");
    replace_each(|path| symlink(&precious, path).unwrap(), check);
}
