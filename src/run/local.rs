//! Stages as child processes of this one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::machine::{memory_of, oom_kills};
use super::scheduler::{Executor, Report};
use super::status::Cause;
use super::wire::{Event, Order, ProcessEvent, STOP};

/// The processes of one run.
pub struct Local {
    /// The srpipe binary.
    exe: PathBuf,
    reports: Sender<Report>,
    children: BTreeMap<usize, Running>,
    oom_kills: u64,
}

struct Running {
    child: Child,
    /// The process group of the program that the stage runs, while it does.
    program: Arc<Mutex<Option<u32>>>,
}

impl Running {
    /// The process groups of the stage.
    fn groups(&self) -> Vec<u32> {
        let program = *self.program.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        [Some(self.child.id()), program].into_iter().flatten().collect()
    }

    fn kill(&self) {
        for group in self.groups() {
            if let Some(group) = Pid::from_raw(group.cast_signed()) {
                // It may be gone by itself.
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
    }
}

impl Local {
    pub fn new(exe: PathBuf, reports: Sender<Report>) -> Self {
        Self { exe, reports, children: BTreeMap::new(), oom_kills: oom_kills() }
    }
}

impl Executor for Local {
    fn start(&mut self, stage: usize, order: &Order, log: &Path) -> Result<()> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(&self.exe);
        if !order.gpus.is_empty() {
            command.env("CUDA_VISIBLE_DEVICES", order.gpus.join(","));
        }
        let mut child = command
            .arg("exec")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            // Ctrl-C on the terminal is the parent's to pass on.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.exe.display()))?;
        let mut line = serde_json::to_string(order).context("writing the order as JSON")?;
        line.push('\n');
        // A child that dies before it reads says why in its log.
        let _ = child.stdin.as_mut().expect("stdin is piped").write_all(line.as_bytes());
        let out = child.stdout.take().expect("stdout is piped");
        let reports = self.reports.clone();
        let program = Arc::new(Mutex::new(None));
        let group_of_program = program.clone();
        let listen = move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // What is not an event was printed by a library; it is of no use here.
                if let Ok(event) = serde_json::from_str::<Event>(&line) {
                    if let Event::Process(ProcessEvent::Program { group }) = event {
                        *group_of_program.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(group);
                    }
                    let _ = reports.send(Report::Event { stage, event });
                }
            }
            let _ = reports.send(Report::Closed { stage });
        };
        self.children.insert(stage, Running { child, program });
        std::thread::Builder::new().name(format!("stage {stage}")).spawn(listen).context("starting a thread")?;
        Ok(())
    }

    fn stop(&mut self, stage: usize) {
        if let Some(stdin) = self.children.get_mut(&stage).and_then(|running| running.child.stdin.as_mut()) {
            // It may have ended by itself in this moment.
            let _ = stdin.write_all(STOP.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
        }
    }

    fn kill(&mut self, stage: usize) {
        if let Some(running) = self.children.get(&stage) {
            running.kill();
        }
    }

    fn memory(&self, stage: usize) -> u64 {
        self.children.get(&stage).map_or(0, |running| memory_of(&running.groups()))
    }

    fn ended(&mut self, stage: usize) -> (Cause, String) {
        let Some(mut running) = self.children.remove(&stage) else { return (Cause::Lost, "was not started".into()) };
        let status = match running.child.wait() {
            Ok(status) => status,
            Err(error) => return (Cause::Lost, format!("ended, and its exit status cannot be read: {error}")),
        };
        // A process that was killed could not end its program.
        if status.signal().is_some() {
            running.kill();
        }
        let before = std::mem::replace(&mut self.oom_kills, oom_kills());
        describe(status, self.oom_kills > before)
    }
}

/// How a process ended that did not say so itself. `out_of_memory`: the kernel has ended processes for want of it.
fn describe(status: ExitStatus, out_of_memory: bool) -> (Cause, String) {
    match (status.code(), status.signal()) {
        (_, Some(9)) if out_of_memory => {
            (Cause::OutOfMemory, "the machine ran out of memory, and the kernel ended the stage's process".into())
        }
        (_, Some(signal @ (1 | 2 | 9 | 15))) => {
            (Cause::Lost, format!("the stage's process was killed from outside, by signal {signal}"))
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
    fn a_death_is_described() {
        let of = |raw, out_of_memory| describe(ExitStatus::from_raw(raw), out_of_memory);
        assert_eq!(of(9, true).0, Cause::OutOfMemory);
        assert_eq!(of(9, false).0, Cause::Lost);
        assert!(of(9, false).1.ends_with("from outside, by signal 9"));
        assert_eq!(of(11, true), (Cause::Failed, "the stage's process was killed by signal 11".into()));
        assert!(of(101 << 8, false).1.contains("exit code 101"));
    }
}
