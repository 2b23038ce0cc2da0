//! Runs stages as child processes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::executor::{Executor, Report};
use super::machine::{Machine, oom_kills};
use super::protocol::{Event, STOP, TaskSpec};
use super::status::Cause;
use crate::stages::processes::tree_memory;
use crate::store::open_log;

/// The processes of one run.
pub(super) struct Local {
    /// The srpipe binary.
    exe: PathBuf,
    reports: Sender<Report>,
    children: BTreeMap<usize, Child>,
    oom_kills: u64,
}

impl Local {
    pub(super) fn new(exe: PathBuf, reports: Sender<Report>) -> Self {
        Self { exe, reports, children: BTreeMap::new(), oom_kills: oom_kills() }
    }
}

impl Executor for Local {
    fn start(&mut self, stage: usize, spec: &TaskSpec, log: &Path) -> Result<()> {
        let file = open_log(log)?;
        let mut command = Command::new(&self.exe);
        if !spec.gpus.is_empty() {
            command.env("CUDA_VISIBLE_DEVICES", spec.gpus.join(","));
        }
        let mut child = command
            .arg("exec")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            // Ctrl-C in the terminal reaches only the parent, which asks its stages to stop.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.exe.display()))?;
        let mut line = serde_json::to_string(spec).context("serialising the task")?;
        line.push('\n');
        // If the child dies before it reads its task, its log contains the reason.
        let _ = child.stdin.as_mut().expect("stdin is piped").write_all(line.as_bytes());
        let out = child.stdout.take().expect("stdout is piped");
        let reports = self.reports.clone();
        let listen = move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // Other lines are output of libraries.
                if let Ok(event) = serde_json::from_str::<Event>(&line) {
                    let _ = reports.send(Report::Event { stage, event });
                }
            }
            let _ = reports.send(Report::Closed { stage });
        };
        self.children.insert(stage, child);
        std::thread::Builder::new().name(format!("stage {stage}")).spawn(listen).context("starting a thread")?;
        Ok(())
    }

    fn stop(&mut self, stage: usize) {
        if let Some(stdin) = self.children.get_mut(&stage).and_then(|child| child.stdin.as_mut()) {
            // The process may have ended.
            let _ = stdin.write_all(STOP.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
        }
    }

    fn kill(&mut self, stage: usize) {
        // If this kills a supervisor, the supervisor's program is killed with it.
        if let Some(child) = self.children.get(&stage) {
            // It may have exited already.
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
        }
    }

    fn machine(&self) -> Option<Machine> {
        Some(Machine::detect())
    }

    fn memory(&self, stage: usize) -> u64 {
        self.children.get(&stage).map_or(0, |child| tree_memory(child.id()))
    }

    fn exit_cause(&mut self, stage: usize) -> (Cause, String) {
        let Some(mut child) = self.children.remove(&stage) else {
            return (Cause::Lost, "the stage's process was not started".into());
        };
        let status = match child.wait() {
            Ok(status) => status,
            Err(error) => return (Cause::Lost, format!("cannot read the exit status of the stage's process: {error}")),
        };
        let before = std::mem::replace(&mut self.oom_kills, oom_kills());
        describe(status, self.oom_kills > before)
    }
}

/// Describes the end of a process that did not report it. `out_of_memory`: the kernel has killed a process because
/// memory ran out.
fn describe(status: ExitStatus, out_of_memory: bool) -> (Cause, String) {
    match (status.code(), status.signal()) {
        (_, Some(9)) if out_of_memory => {
            (Cause::OutOfMemory, "the machine ran out of memory, and the kernel killed the stage's process".into())
        }
        (_, Some(signal @ (1 | 2 | 9 | 15))) => {
            (Cause::Lost, format!("the stage's process was killed from outside srpipe by signal {signal}"))
        }
        (_, Some(signal)) => (Cause::Failed, format!("the stage's process was killed by signal {signal}")),
        (Some(code), _) => {
            (Cause::Failed, format!("the stage's process ended with exit code {code}, without a result"))
        }
        (None, None) => (Cause::Lost, "the stage's process ended without a result".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_described() {
        let of = |raw, out_of_memory| describe(ExitStatus::from_raw(raw), out_of_memory);
        assert_eq!(of(9, true).0, Cause::OutOfMemory);
        assert_eq!(of(9, false).0, Cause::Lost);
        assert!(of(9, false).1.ends_with("from outside srpipe by signal 9"));
        assert_eq!(of(11, true), (Cause::Failed, "the stage's process was killed by signal 11".into()));
        assert!(of(101 << 8, false).1.contains("exit code 101"));
    }
}
