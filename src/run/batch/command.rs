//! Runs commands of a batch system, which may fail, hang, or print nothing.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// The output of a command that ended.
pub struct CommandOutput {
    /// Whether the exit code was 0.
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command with `input` on its stdin. After `timeout`, kills it with everything that it started.
pub(in crate::run) fn run_command(command: &mut Command, input: &str, timeout: Duration) -> Result<CommandOutput> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Start a new process group, so that Ctrl-C does not reach the command and its children can be killed with it.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    // The command may end without reading its input.
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
                bail!("{name} did not end within {} s", timeout.as_secs());
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    let text =
        |handle: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&handle.join().unwrap_or_default()).into_owned();
    Ok(CommandOutput { ok: status.success(), stdout: text(stdout), stderr: text(stderr) })
}

/// Reads a pipe to its end, in another thread.
fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = vec![];
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Returns the first line of a string, at most 200 characters long, for a message.
pub fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Result<CommandOutput> {
        run_command(Command::new("sh").args(["-c", script]), "input", timeout)
    }

    #[test]
    fn output_and_success_are_returned() {
        let output = sh("cat; echo e >&2; exit 3", Duration::from_secs(9)).unwrap();
        assert_eq!((output.ok, output.stdout.as_str(), output.stderr.as_str()), (false, "input", "e\n"));
        assert!(run_command(&mut Command::new("/no/such/command"), "", Duration::from_secs(9)).is_err());
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let start = Instant::now();
        let error = sh("sleep 60 & sleep 60", Duration::from_millis(50)).err().unwrap().to_string();
        assert!(error.contains("sh did not end within") && start.elapsed().as_secs() < 9, "{error}");
    }
}
