//! The processes that a stage starts: how they are started, counted and ended.
//!
//! A `command` stage starts its program through a supervisor process (`srpipe launch`):
//!
//! ```text
//! stage ── supervisor ── program ── whatever it starts, in other sessions and process groups too
//! ```
//!
//! The supervisor is the subreaper of the tree below it: a process whose parent ends becomes its child, so that none
//! leaves the tree. It ends the tree when the program has ended, when the stage asks for it (SIGTERM), and when the
//! stage's process is gone. If the supervisor itself is killed, the program is killed with it, and what else there is
//! becomes the stage's, which is a subreaper too.
//!
//! Linux only. Elsewhere the program is its own process group, which is killed with the stage.

#[cfg(target_os = "linux")]
pub use linux::{become_subreaper, kill_descendants, supervise, tree_memory};
#[cfg(not(target_os = "linux"))]
pub use portable::{become_subreaper, kill_descendants, supervise, tree_memory};

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context as _, Error, anyhow};

/// Replaces this process by the program in `argv`, which is killed when the process that started this one is gone. Returns
/// what went wrong.
pub fn start(argv: &[OsString]) -> Error {
    let Some((program, arguments)) = argv.split_first() else { return anyhow!("there is no program to start") };
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

    /// What a program gets to end by itself when its stage is asked to stop.
    const GRACE: Duration = Duration::from_secs(1);
    /// How long processes may take to die that were killed: they can be in the midst of a system call.
    const PATIENCE: Duration = Duration::from_secs(10);
    const POLL: Duration = Duration::from_millis(5);

    /// Makes processes below this one its children when their parents end.
    pub fn become_subreaper() -> anyhow::Result<()> {
        set_child_subreaper(Some(getpid())).context("becoming the reaper of child processes")
    }

    /// Asks for a signal when the parent is gone. Fails if it is gone already.
    pub fn die_with_parent(signal: Signal) -> anyhow::Result<()> {
        let parent = getppid();
        set_parent_process_death_signal(Some(signal)).context("tying the process to its parent")?;
        anyhow::ensure!(getppid() == parent, "the process that started this one is gone");
        Ok(())
    }

    /// Runs the program in `argv` and ends everything it started. Returns its exit code; if a signal killed the program,
    /// this process dies of the same signal.
    pub fn supervise(argv: &[OsString]) -> anyhow::Result<u8> {
        become_subreaper()?;
        let mut signals = Signals::new([SIGTERM]).context("listening for signals")?;
        let parent = getppid();
        die_with_parent(Signal::TERM)?;
        // This very program, even if its file has been replaced since it was started.
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
                // A process that lost its parent, or one more look after a signal.
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for the program"),
            }
        };
        kill_descendants();
        Ok(exit_code(status))
    }

    fn exit_code(status: WaitStatus) -> u8 {
        if let Some(signal) = status.terminating_signal() {
            // Not for those that only stop a process, which do not end one.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            return 128u8.saturating_add(u8::try_from(signal).unwrap_or(0));
        }
        status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }

    /// A process as `/proc` shows it.
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
            // The command's name, in brackets, may contain anything: fields count from the last one.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let is_zombie = matches!(fields.next()?, "Z" | "X");
            let parent = fields.next()?.parse().ok()?;
            let pages = fields.nth(19)?.parse().ok()?;
            Some((pid, Process { parent, is_zombie, pages }))
        };
        entries.filter_map(process).collect()
    }

    /// The ids of the processes below `root`, without it.
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

    /// Resident memory in bytes of a process and all below it. Pages that they share count for each.
    pub fn tree_memory(root: u32) -> u64 {
        let processes = processes();
        let root = root.cast_signed();
        let tree = descendants(&processes, root).into_iter().chain([root]);
        let pages: u64 = tree.filter_map(|pid| Some(processes.get(&pid)?.pages)).sum();
        pages * rustix::param::page_size() as u64
    }

    /// Sends a signal to every live process below this one; returns how many there were.
    fn signal_descendants(signal: Signal) -> usize {
        let processes = processes();
        let live = descendants(&processes, getpid().as_raw_nonzero().get()).into_iter();
        let live: Vec<i32> = live.filter(|pid| processes.get(pid).is_some_and(|process| !process.is_zombie)).collect();
        for pid in live.iter().filter_map(|&pid| Pid::from_raw(pid)) {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
        live.len()
    }

    /// Kills all processes below this one, those too that they start meanwhile.
    pub fn kill_descendants() {
        let start = Instant::now();
        while signal_descendants(Signal::KILL) > 0 && start.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_tree_has_all_that_is_below_it() {
            let process = |parent| Process { parent, is_zombie: false, pages: 1 };
            let processes = [(1, process(0)), (7, process(1)), (9, process(7)), (8, process(9)), (3, process(1))];
            let mut found = descendants(&processes.into(), 7);
            found.sort_unstable();
            assert_eq!(found, [8, 9]);
        }

        #[test]
        fn this_process_takes_memory_and_a_child_takes_more() {
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

    pub fn become_subreaper() -> anyhow::Result<()> {
        Ok(())
    }

    pub fn kill_descendants() {}

    pub fn tree_memory(_: u32) -> u64 {
        0
    }

    /// Replaces this process by the program.
    pub fn supervise(argv: &[OsString]) -> anyhow::Result<u8> {
        Err(start(argv))
    }
}
