//! Runs the real binary on a pipeline in a temporary folder, which is kept if the test fails.
//!
//! ```ignore
//! let folder = Pipeline::new().stage("images", "{kind: fetch, dataset: synthetic}").folder();
//! let output = folder.run(&[]);
//! assert_eq!(output.code, Some(0), "{output}");
//! ```

#![allow(dead_code, reason = "each test program uses only some of these items")]

pub mod server;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use tempfile::TempDir;

/// The timeout of everything that tests wait for. It is generous, because the machine may be busy.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Builds a pipeline file.
pub struct Pipeline {
    yaml: String,
}

impl Pipeline {
    /// Returns a pipeline without stages.
    pub fn new() -> Self {
        Self { yaml: "name: p\nseed: 1\ndevice: cpu\nstages:\n".into() }
    }

    pub fn stage(mut self, name: &str, yaml: &str) -> Self {
        self.yaml += &format!("  {name}: {yaml}\n");
        self
    }

    /// Returns a pipeline of a few generated images, which two independent stages degrade in different ways.
    pub fn small() -> Self {
        Self::new()
            .stage("images", "{kind: fetch, dataset: synthetic, train: 8, validation: 4, test: 4}")
            .stage("pairs", "{kind: degrade, input: images, scale: 4}")
            .stage("others", "{kind: degrade, input: images, scale: 2}")
    }

    /// Writes the pipeline to a temporary folder.
    pub fn folder(self) -> Folder {
        let folder = tempfile::Builder::new().prefix("srpipe-test-").tempdir().unwrap();
        std::fs::write(folder.path().join("p.yaml"), self.yaml).unwrap();
        Folder { folder: Some(folder) }
    }
}

/// A working folder with `p.yaml` and, after a run, `runs`.
pub struct Folder {
    folder: Option<TempDir>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = self.folder.take().map(TempDir::keep);
            eprintln!("the test's folder is kept: {}", path.unwrap_or_default().display());
        }
    }
}

impl Folder {
    pub fn path(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub fn runs(&self) -> PathBuf {
        self.path().join("runs")
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    /// Returns the command that runs srpipe in this folder, without the environment of the user.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_srpipe"));
        command.args(args).current_dir(self.path()).env_remove("SRPIPE_RUNS").env_remove("http_proxy");
        // Ignore the settings of the user who runs the tests.
        command.env_remove("SRPIPE_REMOTE").env("XDG_CONFIG_HOME", self.path());
        command
    }

    /// Runs srpipe until it exits.
    pub fn srpipe(&self, args: &[&str]) -> Output {
        self.start(args).wait()
    }

    /// Runs `srpipe run p.yaml` with additional arguments.
    pub fn run(&self, args: &[&str]) -> Output {
        self.srpipe(&[&["run", "p.yaml"], args].concat())
    }

    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child }
    }

    /// Returns the digests of a stage's blobs in the latest run.
    pub fn digests(&self, stage: &str) -> BTreeMap<String, String> {
        let entries = std::fs::read_dir(self.runs().join("p/latest").join(stage)).unwrap();
        let digest = |path: &Path| sha256(&std::fs::read(path).unwrap());
        entries.map(|e| e.unwrap()).map(|e| (e.file_name().into_string().unwrap(), digest(&e.path()))).collect()
    }

    /// Returns the modification time of every file and folder under `runs`.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, SystemTime> {
        let mut found = BTreeMap::new();
        let mut unvisited = vec![self.runs()];
        while let Some(path) = unvisited.pop() {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                unvisited.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            found.insert(path, metadata.modified().unwrap());
        }
        found
    }
}

/// A running srpipe process.
pub struct Running {
    pub child: Child,
}

impl Running {
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name).unwrap();
    }

    /// Returns the ids of its child processes.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Waits for the process to exit.
    pub fn wait(mut self) -> Output {
        // Read both pipes while the process runs, so that neither fills up.
        let deadline = Instant::now() + 2 * TIMEOUT;
        let out = read_all(self.child.stdout.take().unwrap());
        let err = read_all(self.child.stderr.take().unwrap());
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    self.child.kill().unwrap();
                    panic!("the process hangs; {}\n{}", out.join().unwrap(), err.join().unwrap());
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
        Output { code: status.code(), signal: status.signal(), stdout, stderr }
    }
}

/// Sends a signal to a process; fails if it does not exist.
pub fn signal(pid: u32, name: &str) -> rustix::io::Result<()> {
    let signal = match name {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        _ => panic!("unknown signal {name}"),
    };
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal)
}

/// Calls `run` with the CPU affinity set to one core, so that every srpipe process that it starts uses one thread.
pub fn on_one_core<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let on_core = || {
        // Processes inherit the affinity of the thread that starts them.
        let allowed = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap());
        sched_setaffinity(None, &one).unwrap();
        assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
        run()
    };
    let result = std::thread::scope(|scope| scope.spawn(on_core).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn read_all(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

/// The exit status and output of a process.
pub struct Output {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {:?}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Output {
    /// Parses the JSON objects on stdout.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Returns the last event, which must be `run_finished`.
    pub fn finished(&self) -> Value {
        let last = self.events().pop().unwrap_or_default();
        assert_eq!(last["event"], "run_finished", "{self}");
        last
    }
}

/// Waits until a condition holds; panics after [`TIMEOUT`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process exists and has not exited.
pub fn is_alive(pid: u32) -> bool {
    // A zombie (state Z) has exited, but its parent has not reaped it yet.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).is_some_and(|state| state != 'Z')
}

/// Returns a CIFAR-10 archive with `images` images per batch.
pub fn archive(images: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(vec![], flate2::Compression::fast()));
    let batches = (1..=5).map(|i| format!("data_batch_{i}")).chain(["test_batch".to_string()]);
    for (b, name) in batches.enumerate() {
        let records: Vec<u8> = (0..images * 3073)
            .map(|i| if i % 3073 == 0 { 0 } else { (i * 31 + i / 3073 * 7 + b * 13) as u8 })
            .collect();
        let mut header = tar::Header::new_gnu();
        header.set_size(records.len() as u64);
        header.set_mode(0o644);
        let path = format!("cifar-10-batches-bin/{name}.bin");
        tar.append_data(&mut header, path, records.as_slice()).unwrap();
    }
    let mut bytes = tar.into_inner().unwrap().finish().unwrap();
    bytes.flush().unwrap();
    bytes
}

/// Returns an altered record's JSON with a matching checksum.
pub fn sealed(json: &str) -> Vec<u8> {
    let body = match json.rsplit_once(",\n\"sha256\": \"") {
        Some((body, _)) => body,
        None => json.trim_end().strip_suffix('}').unwrap().trim_end(),
    };
    format!("{body},\n\"sha256\": \"{}\"}}\n", sha256(body.as_bytes())).into_bytes()
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
