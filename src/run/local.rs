//! Stages as child processes of this one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};

use super::scheduler::{Executor, Report};
use super::wire::{Event, Order, STOP};

/// The processes of one run.
pub struct Local {
    /// The srpipe binary.
    exe: PathBuf,
    reports: Sender<Report>,
    children: BTreeMap<usize, Child>,
}

impl Local {
    pub fn new(exe: PathBuf, reports: Sender<Report>) -> Self {
        Self { exe, reports, children: BTreeMap::new() }
    }
}

impl Executor for Local {
    fn start(&mut self, stage: usize, order: &Order, log: &Path) -> Result<()> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        let mut child = Command::new(&self.exe)
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
        let listen = move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // What is not an event was printed by a library; it is of no use here.
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
            // It may have ended by itself in this moment.
            let _ = stdin.write_all(STOP.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
        }
    }

    fn kill(&mut self, stage: usize) {
        if let Some(child) = self.children.get_mut(&stage) {
            let _ = child.kill();
        }
    }

    fn ended(&mut self, stage: usize) -> String {
        let Some(mut child) = self.children.remove(&stage) else { return "was not started".into() };
        match child.wait() {
            Ok(status) => describe(status),
            Err(error) => format!("ended, and its exit status cannot be read: {error}"),
        }
    }
}

/// How a process ended that did not say so itself.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(9)) => "the stage's process was killed by signal 9 (out of memory?)".into(),
        (_, Some(signal)) => format!("the stage's process was killed by signal {signal}"),
        (Some(code), _) => format!("the stage's process ended with exit code {code}, without a result"),
        (None, None) => "the stage's process ended without a result".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_described() {
        assert!(describe(ExitStatus::from_raw(9)).contains("signal 9 (out of memory?)"));
        assert!(describe(ExitStatus::from_raw(11)).ends_with("killed by signal 11"));
        assert!(describe(ExitStatus::from_raw(101 << 8)).contains("exit code 101"));
    }
}
