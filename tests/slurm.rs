//! Stages as Slurm jobs. The tests use a stub of shell scripts, which can fail in the ways in which the real Slurm
//! does. If `SRPIPE_TEST_SLURM` is the folder of `tests/slurm/start.sh`, some tests also use a real Slurm.

mod common;
#[path = "slurm/damaged_records.rs"]
mod damaged_records;
#[path = "slurm/damaged_runs.rs"]
mod damaged_runs;
#[path = "slurm/failures.rs"]
mod failures;
#[path = "slurm/job_output.rs"]
mod job_output;
#[path = "slurm/real.rs"]
mod real;
#[path = "slurm/unwatched.rs"]
mod unwatched;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use common::{Folder, Output, Pipeline, Running, archive, wait_until};
use serde_json::Value;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slurm");

/// Settings for tests in which a command hangs.
const SHORT_TIMEOUTS: &str = "executor: slurm\nslurm: {grace: 1 s, timeout: 2 s}\n";

/// Settings for tests in which jobs are missing for a while.
const LONG_TIMEOUTS: &str = "executor: slurm\nslurm: {grace: 30 s, timeout: 20 s}\n";

/// A working folder, and the Slurm cluster that runs its jobs.
struct Cluster {
    folder: Folder,
    /// The folder of the stub; None for the real Slurm.
    stub: Option<PathBuf>,
    /// The file that the stage of `waiting` waits for.
    go: PathBuf,
    /// Serialises the tests of the real Slurm.
    _lock: Option<MutexGuard<'static, ()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Let the job end, even if the test has failed.
        if !self.go.as_os_str().is_empty() && fs::write(&self.go, "").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
            let _ = fs::remove_file(&self.go);
        }
    }
}

impl Cluster {
    /// Creates a cluster of the stub.
    fn stub(pipeline: Pipeline) -> Self {
        let folder = pipeline.folder();
        let stub = folder.path().join("stub");
        fs::create_dir_all(stub.join("jobs")).unwrap();
        let cluster = Self { folder, stub: Some(stub), go: PathBuf::new(), _lock: None };
        cluster.settings("executor: slurm\nslurm: {grace: 1 s, timeout: 20 s}\n");
        cluster
    }

    /// Returns None if there is no real Slurm to test with.
    fn real(pipeline: Pipeline) -> Option<Self> {
        static LOCK: Mutex<()> = Mutex::new(());
        std::env::var_os("SRPIPE_TEST_SLURM")?;
        let lock = LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let cluster = Self { folder: pipeline.folder(), stub: None, go: PathBuf::new(), _lock: Some(lock) };
        cluster.settings("executor: slurm\nslurm: {grace: 10 s, all: {cpus: 1}}\n");
        Some(cluster)
    }

    /// Writes the user's settings.
    fn settings(&self, text: &str) {
        fs::create_dir_all(self.folder.path().join("srpipe")).unwrap();
        self.folder.write("srpipe/config.yaml", text);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.folder.command(args);
        match &self.stub {
            Some(stub) => {
                let path = std::env::var("PATH").unwrap();
                command.env("PATH", format!("{SCRIPTS}/stub:{path}")).env("STUB", stub);
            }
            None => {
                let folder = std::env::var("SRPIPE_TEST_SLURM").unwrap();
                command.env("SLURM_CONF", Path::new(&folder).join("slurm.conf"));
            }
        }
        command
    }

    fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running { child: child.unwrap() }
    }

    fn srpipe(&self, args: &[&str]) -> Output {
        self.start(args).wait()
    }

    fn run(&self, args: &[&str]) -> Output {
        self.srpipe(&[&["run", "p.yaml"], args].concat())
    }

    /// Lets the stage of `waiting` end.
    fn go(&self) {
        fs::write(&self.go, "").unwrap();
    }

    /// Injects a failure into the stub. `what` is shell code, and `when` for example `squeue.2` or `squeue.all`.
    fn inject(&self, when: &str, what: &str) {
        fs::write(self.stub.as_ref().unwrap().join(when), what).unwrap();
    }

    /// Returns the number of calls of a command of the stub.
    fn calls(&self, command: &str) -> usize {
        let calls = self.stub.as_ref().unwrap().join(format!("{command}.calls"));
        fs::read_to_string(calls).map_or(0, |text| text.trim().parse().unwrap())
    }

    /// Returns the state of a job of the stub.
    fn state(&self, job: &str) -> String {
        let state = self.stub.as_ref().unwrap().join("jobs").join(job).join("state");
        fs::read_to_string(state).unwrap_or_default().trim().to_string()
    }

    /// Returns the options of all submissions, one line each.
    fn submitted(&self) -> String {
        fs::read_to_string(self.stub.as_ref().unwrap().join("submitted")).unwrap_or_default()
    }

    /// Returns the record of the latest run.
    fn record(&self) -> Value {
        let bytes = fs::read(self.folder.runs().join("p/latest/run.json"));
        bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn status(&self) -> Value {
        let output = self.srpipe(&["status", "p", "--json"]);
        // There is no status until the run has begun.
        serde_json::from_str(&output.stdout).unwrap_or_default()
    }
}

fn assert_done(output: &Output) {
    assert_eq!(output.code, Some(0), "{output}");
}

/// Returns a pipeline with most kinds of stages, which runs for a few seconds.
fn small_study() -> Pipeline {
    Pipeline::small()
        .stage(
            "model",
            "{kind: train, data: pairs, model: {base_channels: 4}, optim: {steps: 4, batch_size: 4}, \
             validation: {every: 2}}",
        )
        .stage("samples", "{kind: sample, model: model, data: pairs, samples: 2, sampler: {steps: 2}}")
        .stage("compare", "{kind: compare, arms: {only: samples}, rows: 1}")
}

/// Returns a pipeline that trains for `steps` steps.
fn training(steps: usize) -> Pipeline {
    Pipeline::small().stage(
        "model",
        &format!(
            "{{kind: train, data: pairs, model: {{base_channels: 4}}, optim: {{steps: {steps}, batch_size: 4}}, \
             validation: {{every: 50}}, retry: {{time: 3}}}}"
        ),
    )
}

/// Returns a pipeline with a sweep of short training runs.
fn swept(instances: usize) -> Pipeline {
    let seeds: Vec<String> = (0..instances).map(|seed| seed.to_string()).collect();
    Pipeline::small().stage(
        "model",
        &format!(
            "{{kind: train, data: pairs, model: {{base_channels: 4}}, optim: {{steps: 2, batch_size: 4}}, \
             validation: {{every: 2}}, matrix: {{seed: [{}]}}}}",
            seeds.join(", ")
        ),
    )
}

/// Returns a cluster of the stub with a stage that ends when a file appears.
fn waiting() -> Cluster {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("srpipe-test-go-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let go = std::env::temp_dir().join(name);
    let script = format!("while [ ! -f {} ]; do sleep 0.02; done; echo 1 > {{outputs.n}}", go.display());
    let stage = format!("{{kind: command, command: [sh, -c, '{script}'], outputs: [n]}}");
    let mut cluster = Cluster::stub(Pipeline::new().stage("wait", &stage));
    cluster.go = go;
    cluster
}

/// Returns a field of each of the run's jobs in the real Slurm.
fn real_jobs(cluster: &Cluster, format: &str) -> Vec<String> {
    let folder = std::env::var("SRPIPE_TEST_SLURM").unwrap();
    let run = cluster.record()["id"].as_str().unwrap_or("none").to_string();
    let output = Command::new("squeue")
        .args(["--noheader", &format!("--format={format}"), &format!("--name={run}")])
        .env("SLURM_CONF", Path::new(&folder).join("slurm.conf"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_string()).collect()
}

/// Runs a command of the real Slurm.
fn run_slurm_command(command: &str, args: &[&str]) {
    let folder = std::env::var("SRPIPE_TEST_SLURM").unwrap();
    let ended = Command::new(command).args(args).env("SLURM_CONF", Path::new(&folder).join("slurm.conf")).status();
    assert!(ended.unwrap().success(), "{command} {args:?}");
}

#[test]
fn the_stubs_commands_are_executable() {
    for command in ["sbatch", "squeue", "sacct", "scancel", "scontrol"] {
        let mode = fs::metadata(Path::new(SCRIPTS).join("stub").join(command)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{command}");
    }
}

#[test]
fn results_are_identical_to_those_of_a_local_run() {
    let (here, cluster) = (small_study().folder(), Cluster::stub(small_study()));
    assert_done(&here.run(&[]));
    let output = cluster.run(&["--json"]);
    assert_done(&output);
    assert_eq!(output.finished()["stages"]["compare"], "ran", "{output}");
    for stage in ["model", "samples", "compare"] {
        assert_eq!(cluster.folder.digests(stage), here.digests(stage), "{stage}");
    }
    assert_eq!(cluster.record()["executor"], "slurm");
    let log = cluster.srpipe(&["logs", "model"]);
    assert!(log.stdout.contains("steps 0 to 4"), "{log}");
    assert!(cluster.run(&[]).stdout.contains("nothing to do"));
    // A local run finds the cluster's results without Slurm.
    let output = cluster.folder.run(&["--executor", "local"]);
    assert!(output.stdout.contains("nothing to do"), "{output}");
}

#[test]
fn requested_resources_become_options_of_sbatch() {
    let cluster = Cluster::stub(Pipeline::new().stage(
        "images",
        "{kind: fetch, dataset: synthetic, train: 2, validation: 2, test: 2, resources: {cpus: 3, memory: 1 GiB, gpus: 2, \
         time: 1 h, partition: gpu, account: lab, qos: high, constraint: a100, extra: [--exclude=n7]}}",
    ));
    assert_done(&cluster.run(&[]));
    let submitted = cluster.submitted();
    for option in [
        "--cpus-per-task=3",
        "--mem=1024M",
        "--gres=gpu:2",
        "--time=0-01:00:00",
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        "--constraint=a100",
        "--exclude=n7",
    ] {
        assert!(submitted.contains(option), "{option}: {submitted}");
    }
    let run = cluster.record()["id"].as_str().unwrap().to_string();
    assert!(submitted.contains(&format!("--job-name={run}")), "{submitted}");
    let key = cluster.record()["stages"][0]["key"].as_str().unwrap().to_string();
    assert!(submitted.contains(&format!("--comment=b1 {key}")), "{submitted}");
}

#[test]
fn instances_of_a_sweep_are_submitted_as_one_array() {
    let cluster = Cluster::stub(swept(16));
    assert_done(&cluster.run(&[]));
    let submitted = cluster.submitted();
    assert_eq!(cluster.calls("sbatch"), 4, "images, two of pairs, one array: {submitted}");
    assert!(submitted.lines().last().unwrap().contains("--array=0-15"), "{submitted}");
}

#[test]
fn without_slurm_the_error_contains_the_next_step() {
    let folder = Pipeline::small().folder();
    let mut command = folder.command(&["run", "p.yaml", "--executor", "slurm"]);
    let output = command.env("PATH", folder.path()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("login node") && error.contains("--executor local"), "{error}");
    let output = folder.run(&["--detach"]);
    assert!(output.code == Some(2) && output.stderr.contains("--executor slurm"), "{output}");
}

/// Measures the CPU time of a run that watches 1,000 jobs.
#[test]
#[ignore = "takes two minutes; run it manually to measure"]
fn watching_a_thousand_jobs_costs_little() {
    let cluster = Cluster::stub(swept(1000));
    // None of the jobs starts; the stub prints a prepared answer.
    let rows = |batch: usize, tasks: usize| {
        (0..tasks).map(move |task| format!("{batch}|{task}|RUNNING|n{task}|b{batch} x|None\n")).collect::<String>()
    };
    cluster.inject("sbatch.4", "cat > /dev/null; echo 4; exit 0");
    cluster.inject("sbatch.5", "cat > /dev/null; echo 5; exit 0");
    fs::write(cluster.stub.as_ref().unwrap().join("rows"), rows(4, 500) + &rows(5, 500)).unwrap();
    // Discard the output: nothing reads it.
    let mut run = cluster.command(&["run", "p.yaml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("all is submitted", || cluster.calls("sbatch") == 5);
    cluster.inject("squeue.all", "exec cat \"$STUB/rows\"");
    std::thread::sleep(Duration::from_secs(10));
    let spent = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", run.id())).unwrap();
        let fields: Vec<f64> =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(4).map(|f| f.parse().unwrap()).collect();
        // The time of the process and of the commands that it waited for, in ticks of 10 ms.
        fields.iter().sum::<f64>() / 100.0
    };
    let (before, calls) = (spent(), cluster.calls("squeue"));
    std::thread::sleep(Duration::from_secs(100));
    let share = (spent() - before) / 100.0;
    println!("{:.2} % of a core, {} calls of squeue in 100 s", 100.0 * share, cluster.calls("squeue") - calls);
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(share < 0.01, "{share}");
}

/// Runs the pipeline, the settings and the commands of `docs/slurm.md`, with a few training steps on a few images.
#[test]
fn the_commands_of_the_slurm_page_run() {
    let page = include_str!("../docs/slurm.md");
    let blocks = |language: &str| -> Vec<&str> {
        page.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
    };
    let [pipeline, settings] = blocks("yaml")[..] else { panic!("{} blocks of YAML", blocks("yaml").len()) };
    let cluster = Cluster::stub(Pipeline::new());
    cluster.folder.write("study.yaml", pipeline);
    cluster.settings(settings);
    cluster.folder.write("images.tar.gz", archive(8));
    let plan = ["plan", "study.yaml", "--set", "stages.cifar.url=file:images.tar.gz"];
    let output = cluster.srpipe(&plan);
    assert_done(&output);
    assert!(output.stdout.contains("attention[…] × 16"), "{output}");
    // A typo in the settings is an error, which shows that they are read.
    cluster.settings(&settings.replace("grace", "grase"));
    let output = cluster.srpipe(&plan);
    assert_eq!(output.code, Some(2), "{output}");
    assert!(output.stderr.contains("grase"), "{output}");

    cluster.settings(settings);
    let mut small = pipeline.to_string();
    for (long, short) in [
        ("file:/shared/data/cifar-10-binary.tar.gz\"", "file:images.tar.gz\", validation: 4"),
        ("optim: { steps: 20000 }", "model: { base_channels: 8 }\n    optim: { steps: 2, batch_size: 4 }"),
        ("[0, 1, 2, 3, 4, 5, 6, 7]", "[0, 1]"),
        ("{ kind: sample,", "{ kind: sample, samples: 1, limit: 2, sampler: { steps: 2 },"),
    ] {
        assert!(small.contains(long), "{long}");
        small = small.replace(long, short);
    }
    cluster.folder.write("study.yaml", small);
    let shell = blocks("sh").concat();
    let commands: Vec<&str> = shell.lines().filter_map(|line| line.strip_prefix("srpipe ")).collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let words = command.split("  #").next().unwrap().split_whitespace();
        let words: Vec<&str> = words.map(|word| word.trim_matches('\'')).collect();
        let output = cluster.srpipe(&words);
        assert_eq!(output.code, Some(0), "{words:?}: {output}");
    }
}
