//! Runs commands that may fail, hang, or say nothing.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How a command ended, and what it wrote.
pub struct CommandOutput {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end, or ends it with all that it started when that takes too long.
pub fn answer(command: &mut Command, input: &str, timeout: Duration) -> Result<CommandOutput> {
    let name = command.get_program().to_string_lossy().into_owned();
    // A group of its own: Ctrl-C is not for it, and what it started ends with it.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    // It may end without reading.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.try_wait().with_context(|| format!("waiting for {name}"))? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
                bail!("{name} did not answer within {} s", timeout.as_secs());
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    let text =
        |handle: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&handle.join().unwrap_or_default()).into_owned();
    Ok(CommandOutput { ok: status.success(), stdout: text(stdout), stderr: text(stderr) })
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = vec![];
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// What fits into a message.
pub fn shortened(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Result<CommandOutput> {
        answer(Command::new("sh").args(["-c", script]), "input", timeout)
    }

    #[test]
    fn what_a_command_says_and_how_it_ends_is_told() {
        let said = sh("cat; echo e >&2; exit 3", Duration::from_secs(9)).unwrap();
        assert_eq!((said.ok, said.stdout.as_str(), said.stderr.as_str()), (false, "input", "e\n"));
        assert!(answer(&mut Command::new("/no/such/command"), "", Duration::from_secs(9)).is_err());
    }

    #[test]
    fn one_that_hangs_is_ended_with_what_it_started() {
        let start = Instant::now();
        let error = sh("sleep 60 & sleep 60", Duration::from_millis(50)).err().unwrap().to_string();
        assert!(error.contains("sh did not answer within") && start.elapsed().as_secs() < 9, "{error}");
    }
}
