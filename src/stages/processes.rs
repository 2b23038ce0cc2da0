//! Starts, measures and terminates the processes of a stage.
//!
//! A `command` stage starts its program through a supervisor process (`srpipe launch`):
//!
//! ```text
//! stage ── supervisor ── program ── its descendants, including those in other sessions and process groups
//! ```
//!
//! The supervisor is the subreaper of the process tree below it: a process whose parent exits becomes its child, so
//! none escapes the tree. The supervisor kills the tree when the program exits, when the stage requests it (SIGTERM),
//! and when the stage's process dies. If the supervisor itself is killed, the program is killed with it, and its other
//! descendants become children of the stage, which is a subreaper too.
//!
//! Linux only. Elsewhere the program is its own process group, which is killed with the stage.

#[cfg(target_os = "linux")]
pub(super) use linux::{become_subreaper, kill_descendants};
#[cfg(target_os = "linux")]
pub use linux::{supervise, tree_memory};
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{become_subreaper, kill_descendants};
#[cfg(not(target_os = "linux"))]
pub use portable::{supervise, tree_memory};

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context as _, Error, anyhow};

/// Replaces this process with the program in `argv`, which is killed when its parent dies. Returns only on failure,
/// with the error.
pub fn start(argv: &[OsString]) -> Error {
    let Some((program, arguments)) = argv.split_first() else { return anyhow!("no program to start") };
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::die_with_parent(rustix::process::Signal::KILL) {
        return error;
    }
    let error = Command::new(program).args(arguments).exec();
    Error::new(error).context(format!("starting {}", program.display()))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::process::{
        Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, set_child_subreaper,
        set_parent_process_death_signal, wait,
    };
    use signal_hook::consts::SIGTERM;
    use signal_hook::iterator::Signals;

    use super::*;

    /// The time between a stop request to the program and killing it.
    const GRACE: Duration = Duration::from_secs(1);
    /// How long killed processes may take to die: they can be in the middle of a system call.
    const PATIENCE: Duration = Duration::from_secs(10);
    const POLL: Duration = Duration::from_millis(5);

    /// Makes descendants of this process its children when their parents exit.
    pub(in crate::stages) fn become_subreaper() -> anyhow::Result<()> {
        set_child_subreaper(Some(getpid())).context("becoming a child subreaper")
    }

    /// Requests a signal for when the parent dies. Fails if it is already dead.
    pub(super) fn die_with_parent(signal: Signal) -> anyhow::Result<()> {
        let parent = getppid();
        set_parent_process_death_signal(Some(signal)).context("tying the process to its parent")?;
        anyhow::ensure!(getppid() == parent, "the parent process has exited");
        Ok(())
    }

    /// Runs the program in `argv` and kills everything it started. Returns its exit code; if a signal killed the
    /// program, this process kills itself with the same signal.
    pub fn supervise(argv: &[OsString]) -> anyhow::Result<u8> {
        become_subreaper()?;
        let mut signals = Signals::new([SIGTERM]).context("listening for signals")?;
        let parent = getppid();
        die_with_parent(Signal::TERM)?;
        // This binary, even if its file was replaced after the start.
        let program = Command::new("/proc/self/exe")
            .arg0("srpipe")
            .args(["start", "--"])
            .args(argv)
            .process_group(0)
            .spawn()
            .context("starting the program's process")?;
        let program = Pid::from_child(&program);
        let on_signal = move || {
            for _ in signals.forever() {
                if getppid() == parent {
                    signal_descendants(Signal::TERM);
                    std::thread::sleep(GRACE);
                }
                kill_descendants();
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(on_signal).context("starting a thread")?;
        let status = loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid == program => break status,
                // An orphan was reaped, or a signal interrupted the wait.
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for the program"),
            }
        };
        kill_descendants();
        Ok(exit_code(status))
    }

    fn exit_code(status: WaitStatus) -> u8 {
        if let Some(signal) = status.terminating_signal() {
            // Signals that only stop a process do not occur here.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            return 128u8.saturating_add(u8::try_from(signal).unwrap_or(0));
        }
        status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }

    /// A process as listed in `/proc`.
    struct Process {
        parent: i32,
        is_zombie: bool,
        /// Resident memory in pages.
        pages: u64,
    }

    fn processes() -> BTreeMap<i32, Process> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let process = |entry: fs::DirEntry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The command name, in parentheses, may contain anything: parse from the last one.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let is_zombie = matches!(fields.next()?, "Z" | "X");
            let parent = fields.next()?.parse().ok()?;
            let pages = fields.nth(19)?.parse().ok()?;
            Some((pid, Process { parent, is_zombie, pages }))
        };
        entries.filter_map(process).collect()
    }

    /// Returns the ids of the descendants of `root`.
    fn descendants(processes: &BTreeMap<i32, Process>, root: i32) -> Vec<i32> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (&pid, process) in processes {
            children.entry(process.parent).or_default().push(pid);
        }
        let mut found = vec![];
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            let below = children.get(&pid).map_or(&[][..], Vec::as_slice);
            found.extend(below);
            next.extend(below);
        }
        found
    }

    /// Returns the resident memory, in bytes, of a process and its descendants. Shared pages count once per process.
    pub fn tree_memory(root: u32) -> u64 {
        let processes = processes();
        let root = root.cast_signed();
        let tree = descendants(&processes, root).into_iter().chain([root]);
        let pages: u64 = tree.filter_map(|pid| Some(processes.get(&pid)?.pages)).sum();
        pages * rustix::param::page_size() as u64
    }

    /// Sends a signal to every live descendant of this process; returns their number.
    fn signal_descendants(signal: Signal) -> usize {
        let processes = processes();
        let live = descendants(&processes, getpid().as_raw_nonzero().get()).into_iter();
        let live: Vec<i32> = live.filter(|pid| processes.get(pid).is_some_and(|process| !process.is_zombie)).collect();
        for pid in live.iter().filter_map(|&pid| Pid::from_raw(pid)) {
            // It may have exited already.
            let _ = kill_process(pid, signal);
        }
        live.len()
    }

    /// Kills all descendants of this process, including those that they start in the meantime.
    pub(in crate::stages) fn kill_descendants() {
        let start = Instant::now();
        while signal_descendants(Signal::KILL) > 0 && start.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn descendants_include_all_levels() {
            let process = |parent| Process { parent, is_zombie: false, pages: 1 };
            let processes = [(1, process(0)), (7, process(1)), (9, process(7)), (8, process(9)), (3, process(1))];
            let mut found = descendants(&processes.into(), 7);
            found.sort_unstable();
            assert_eq!(found, [8, 9]);
        }

        #[test]
        fn memory_includes_child_processes() {
            let own = tree_memory(std::process::id());
            assert!(own > 1 << 20, "{own}");
            let mut child = Command::new("sleep").arg("10").spawn().unwrap();
            let is_child = descendants(&processes(), getpid().as_raw_nonzero().get()).contains(&(child.id() as i32));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(is_child);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use super::*;

    pub(in crate::stages) fn become_subreaper() -> anyhow::Result<()> {
        Ok(())
    }

    pub(in crate::stages) fn kill_descendants() {}

    pub fn tree_memory(_: u32) -> u64 {
        0
    }

    /// Replaces this process with the program.
    pub fn supervise(argv: &[OsString]) -> anyhow::Result<u8> {
        Err(start(argv))
    }
}
