//! The `command` stage: runs a user-supplied program.
//!
//! The program starts in an empty working folder. Its arguments contain relative paths, so they do not depend on the
//! location of the store:
//!
//! ```text
//! inputs/NAME/<blob>     links to the blobs of an input, one or all
//! outputs/               the program's outputs
//! <path>                 copies of the declared files
//! ```
//!
//! The program's stdout and stderr go to the stage's log. Every process it starts is terminated with the stage; see
//! `processes`.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Context, Interrupted, Outcome, metrics_file, processes};
use crate::config::CommandParams;
use crate::config::command::{Placeholder, split, substitute};
use crate::config::expansion_hint;
use crate::store::{Artifact, hash_file, remove_folder};

/// The variables of srpipe's environment that the program inherits.
const INHERITED: [&str; 3] = ["PATH", "HOME", "TMPDIR"];
/// The polling interval for stop requests.
const POLL: Duration = Duration::from_millis(50);
/// The time that the program and its supervisor have to exit after a stop request; the supervisor kills the program
/// after a second.
const GRACE: Duration = Duration::from_secs(3);

/// The error of a program that was killed by a signal.
#[derive(Debug)]
pub struct Killed {
    pub signal: i32,
}

impl std::fmt::Display for Killed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the program was killed by signal {}", self.signal)
    }
}

impl std::error::Error for Killed {}

/// Runs the program and stores its outputs. An interrupted run restarts from the beginning.
///
/// # Errors
/// Fails if the exit code is not 0, a declared output is missing, or an input was modified.
pub(super) fn run(params: &CommandParams, ctx: &Context) -> anyhow::Result<Outcome> {
    let scratch = ctx.work.join("scratch");
    remove(&scratch)?;
    let outputs = scratch.join("outputs");
    fs::create_dir_all(&outputs).with_context(|| format!("creating {}", outputs.display()))?;
    let inputs = link_inputs(params, &scratch, ctx)?;
    copy_files(params, &scratch, ctx)?;
    let before = states(&inputs)?;

    let status = execute(params, &scratch, ctx)?;
    if status.signal() == Some(Signal::TERM.as_raw()) {
        // On cancellation, all processes of a job get the signal, in any order.
        std::thread::sleep(POLL);
    }
    if (ctx.interrupted)() {
        return Err(Interrupted.into());
    }
    match (status.code(), status.signal()) {
        (Some(0), _) => {}
        (Some(code @ (126 | 127)), _) => {
            let program = &params.command[0];
            let why = explain_exit_code(params, &scratch, code);
            bail!("the program `{program}` ended with exit code {code}: {why}{}", expansion_hint(program))
        }
        (Some(code), _) => bail!("the program `{}` ended with exit code {code}", params.command[0]),
        (None, signal) => return Err(Killed { signal: signal.unwrap_or(0) }.into()),
    }
    ensure!(
        states(&inputs).is_ok_and(|after| after == before),
        "the program changed one of its inputs, which belong to other stages too. Let it write to {{outputs.NAME}} only"
    );

    let mut outcome = Outcome::default();
    for name in &params.outputs {
        let path = outputs.join(name);
        let made = fs::symlink_metadata(&path);
        ensure!(made.is_ok(), "the program exited with code 0 but did not create {{outputs.{name}}}");
        ensure!(made.is_ok_and(|m| m.is_file()), "{{outputs.{name}}} is not a regular file");
        let digest = ctx.store.put_file(&path).with_context(|| format!("storing {name}"))?;
        outcome.outputs.insert(name.clone(), digest);
    }
    if let Some(name) = &params.metrics {
        outcome.metrics =
            metrics_file::read(&outputs.join(name)).with_context(|| format!("reading the metrics in {name}"))?;
    }
    remove(&scratch)?;
    Ok(outcome)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) if !metadata.is_dir() => fs::remove_file(folder),
        _ => remove_folder(folder),
    }
    .with_context(|| format!("removing {}", folder.display()))
}

/// Links all blobs that the program reads, after checking their digests; returns the files of the blobs.
fn link_inputs(params: &CommandParams, scratch: &Path, ctx: &Context) -> anyhow::Result<Vec<PathBuf>> {
    let mut linked = vec![];
    for (name, input) in &params.inputs {
        let artifact: &Artifact =
            ctx.inputs.get(&format!("inputs.{name}")).with_context(|| format!("the stage has no input `{name}`"))?;
        if let (stage, Some(blob)) = split(input) {
            ensure!(artifact.contains_key(blob), "stage `{stage}` has no output {blob}");
        }
        let folder = scratch.join("inputs").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        for (blob, digest) in artifact {
            ctx.store.check(digest).with_context(|| format!("reading {blob} of `{input}`"))?;
            let path = ctx.store.blob_path(digest);
            symlink(&path, folder.join(blob)).with_context(|| format!("linking {blob} of `{input}`"))?;
            linked.push(path);
        }
    }
    Ok(linked)
}

fn copy_files(params: &CommandParams, scratch: &Path, ctx: &Context) -> anyhow::Result<()> {
    for file in &params.files {
        let copy = scratch.join(file);
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        fs::copy(file, &copy).with_context(|| format!("copying {file}"))?;
        let digest = hash_file(&copy).with_context(|| format!("reading {file}"))?;
        if ctx.sources.get(&format!("files.{file}")) != Some(&digest) {
            ctx.store.forget_hashes(Path::new(file));
            bail!("{file} was changed after the run was planned; run again");
        }
    }
    Ok(())
}

/// The metadata that changes when a file is written to.
fn states(paths: &[PathBuf]) -> anyhow::Result<Vec<(u64, SystemTime)>> {
    let state = |path: &PathBuf| {
        let metadata = fs::metadata(path)?;
        Ok::<_, std::io::Error>((metadata.len(), metadata.modified()?))
    };
    paths.iter().map(|path| state(path).with_context(|| format!("reading the state of {}", path.display()))).collect()
}

fn execute(params: &CommandParams, scratch: &Path, ctx: &Context) -> anyhow::Result<ExitStatus> {
    let fill = |text: &String| {
        substitute(text, |placeholder| {
            Ok::<_, anyhow::Error>(match placeholder {
                Placeholder::Seed => ctx.seed.to_string(),
                Placeholder::Threads => ctx.threads.to_string(),
                Placeholder::Output(name) => format!("outputs/{name}"),
                Placeholder::Input(name) => match params.inputs.get(name).map(|input| split(input)) {
                    Some((_, Some(blob))) => format!("inputs/{name}/{blob}"),
                    Some((_, None)) => format!("inputs/{name}"),
                    None => bail!("there is no input `{name}`"),
                },
            })
        })
    };
    let argv: Vec<String> = params.command.iter().map(fill).collect::<anyhow::Result<_>>()?;
    let mut command = match &ctx.launcher {
        Some(launcher) => {
            let mut command = Command::new(launcher);
            command.arg("launch").arg("--").args(&argv);
            command
        }
        None => {
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]);
            command
        }
    };
    command.env_clear().envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("OMP_NUM_THREADS", ctx.threads.to_string()).env("CUDA_VISIBLE_DEVICES", &ctx.gpus);
    for (name, value) in &params.env {
        command.env(name, fill(value)?);
    }
    let log = || std::io::stderr().as_fd().try_clone_to_owned().map(Stdio::from).context("opening the log");
    command.current_dir(scratch).stdin(Stdio::null()).stdout(log()?).stderr(log()?).process_group(0);
    let is_supervised = ctx.launcher.is_some();
    if is_supervised {
        processes::become_subreaper()?;
    }
    let mut child = command.spawn().with_context(|| format!("starting `{}`", argv[0]))?;
    let group = Pid::from_child(&child);
    let kill = || {
        let _ = kill_process_group(group, Signal::KILL);
        // In a unit test, this process also has child processes of other tests.
        if is_supervised {
            processes::kill_descendants();
        }
    };

    // A thread waits for the program, so that its exit is noticed immediately and a stop request is noticed by polling.
    let (sender, ended) = mpsc::channel();
    let wait = move || drop(sender.send(child.wait()));
    std::thread::Builder::new().name("program".into()).spawn(wait).context("starting a thread")?;
    let status = loop {
        match ended.recv_timeout(POLL) {
            Ok(status) => break status.context("waiting for the program")?,
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that waits for the program has died"),
            Err(RecvTimeoutError::Timeout) if (ctx.interrupted)() => {
                let _ = kill_process_group(group, Signal::TERM);
                let _ = ended.recv_timeout(GRACE);
                kill();
                return Err(Interrupted.into());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    // Background processes that the program left running.
    kill();
    Ok(status)
}

/// Explains an exit code by which shells report that a program could not be started: 127 if it was not found, 126 if it
/// cannot be executed. Programs pass on the exit codes of those that they start.
fn explain_exit_code(params: &CommandParams, scratch: &Path, code: i32) -> String {
    let program = params.command[0].as_str();
    let found = match program.contains('/') {
        // A placeholder for one of its inputs.
        _ if program.contains('{') => Some(PathBuf::new()),
        true => Some(scratch.join(program)).filter(|path| path.exists()),
        false => {
            let path = params.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
            let folders: Vec<PathBuf> = path.iter().flat_map(std::env::split_paths).collect();
            folders.iter().map(|folder| scratch.join(folder).join(program)).find(|file| file.is_file())
        }
    };
    let Some(path) = found else {
        let absolute = std::path::absolute(program).ok().filter(|path| path.exists());
        return match absolute {
            _ if !program.contains('/') => "it is not installed, or not in a folder in PATH".into(),
            Some(_) if program.starts_with('/') => "there is no such file".into(),
            Some(path) => format!(
                "there is no such file in the stage's own working folder, where the program starts. Specify the full path, {}, or \
                 list it under `files` if it is a script",
                path.display()
            ),
            None => {
                "there is no such file. The program starts in a working folder of its own, which contains only its inputs and \
                 `files`: specify the full path, or list it under `files`"
                    .into()
            }
        };
    };
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => "it is a folder".into(),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => format!(
            "it is not executable: run `chmod +x {program}`, or run it with its interpreter, such as [sh, {program}]"
        ),
        _ if code == 127 => {
            "the program, the interpreter in its first line, or a program that it starts was not found".into()
        }
        _ => "the program, or a program that it starts, cannot be executed".into(),
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
