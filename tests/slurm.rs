//! Stages as jobs of Slurm: with a stub of shell scripts, which can fail in the ways that the real Slurm does, and if
//! `SRPIPE_TEST_SLURM` names the folder of `tests/slurm/start.sh`, with a real Slurm.

mod common;
#[path = "slurm/damaged_records.rs"]
mod damaged_records;

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
const IMPATIENT: &str = "executor: slurm\nslurm: {grace: 1 s, timeout: 2 s}\n";

/// Settings for tests in which jobs are missing for a while.
const PATIENT: &str = "executor: slurm\nslurm: {grace: 30 s, timeout: 20 s}\n";

/// A working folder and a Slurm.
struct Cluster {
    folder: Folder,
    /// The folder of the stub; None for the real Slurm.
    stub: Option<PathBuf>,
    /// The file that the stage of `waiting` waits for.
    go: PathBuf,
    /// Tests of the real Slurm run one after the other.
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Jobs continue after a test that fails.
        if !self.go.as_os_str().is_empty() && fs::write(&self.go, "").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
            let _ = fs::remove_file(&self.go);
        }
    }
}

impl Cluster {
    fn stub(pipeline: Pipeline) -> Self {
        let folder = pipeline.folder();
        let stub = folder.path().join("stub");
        fs::create_dir_all(stub.join("jobs")).unwrap();
        let cluster = Self { folder, stub: Some(stub), go: PathBuf::new(), _alone: None };
        cluster.settings("executor: slurm\nslurm: {grace: 1 s, timeout: 20 s}\n");
        cluster
    }

    /// Returns None if there is no real Slurm to test with.
    fn real(pipeline: Pipeline) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        std::env::var_os("SRPIPE_TEST_SLURM")?;
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let cluster = Self { folder: pipeline.folder(), stub: None, go: PathBuf::new(), _alone: Some(alone) };
        cluster.settings("executor: slurm\nslurm: {grace: 10 s, all: {cpus: 1}}\n");
        Some(cluster)
    }

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

    fn go(&self) {
        fs::write(&self.go, "").unwrap();
    }

    /// Injects a failure into the stub. `what` is shell code, and `when` for example `squeue.2` or `squeue.all`.
    fn inject(&self, when: &str, what: &str) {
        fs::write(self.stub.as_ref().unwrap().join(when), what).unwrap();
    }

    fn calls(&self, command: &str) -> usize {
        let calls = self.stub.as_ref().unwrap().join(format!("{command}.calls"));
        fs::read_to_string(calls).map_or(0, |text| text.trim().parse().unwrap())
    }

    /// Returns the state of a job of the stub.
    fn state(&self, job: &str) -> String {
        let state = self.stub.as_ref().unwrap().join("jobs").join(job).join("state");
        fs::read_to_string(state).unwrap_or_default().trim().to_string()
    }

    fn submitted(&self) -> String {
        fs::read_to_string(self.stub.as_ref().unwrap().join("submitted")).unwrap_or_default()
    }

    fn record(&self) -> Value {
        let bytes = fs::read(self.folder.runs().join("p/latest/run.json"));
        bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn status(&self) -> Value {
        let output = self.srpipe(&["status", "p", "--json"]);
        // Before the run has begun there is no status.
        serde_json::from_str(&output.stdout).unwrap_or_default()
    }
}

fn assert_done(output: &Output) {
    assert_eq!(output.code, Some(0), "{output}");
}

/// A pipeline with all kinds of stages that takes seconds.
fn whole() -> Pipeline {
    Pipeline::small()
        .stage(
            "model",
            "{kind: train, data: pairs, model: {base_channels: 4}, optim: {steps: 4, batch_size: 4}, \
             heldout: {every: 2}}",
        )
        .stage("samples", "{kind: sample, model: model, data: pairs, samples: 2, sampler: {steps: 2}}")
        .stage("compare", "{kind: compare, arms: {only: samples}, rows: 1}")
}

fn long(steps: usize) -> Pipeline {
    Pipeline::small().stage(
        "model",
        &format!(
            "{{kind: train, data: pairs, model: {{base_channels: 4}}, optim: {{steps: {steps}, batch_size: 4}}, \
             heldout: {{every: 50}}, retry: {{time: 3}}}}"
        ),
    )
}

fn swept(instances: usize) -> Pipeline {
    let seeds: Vec<String> = (0..instances).map(|seed| seed.to_string()).collect();
    Pipeline::small().stage(
        "model",
        &format!(
            "{{kind: train, data: pairs, model: {{base_channels: 4}}, optim: {{steps: 2, batch_size: 4}}, \
             heldout: {{every: 2}}, matrix: {{seed: [{}]}}}}",
            seeds.join(", ")
        ),
    )
}

/// A stub, and a stage that ends when a file appears.
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

#[test]
fn the_stubs_commands_are_executable() {
    for command in ["sbatch", "squeue", "sacct", "scancel", "scontrol"] {
        let mode = fs::metadata(Path::new(SCRIPTS).join("stub").join(command)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{command}");
    }
}

#[test]
fn results_are_identical_to_those_of_one_machine() {
    let (here, cluster) = (whole().folder(), Cluster::stub(whole()));
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
    // One machine finds the cluster's results without Slurm.
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
fn a_queue_that_fails_hangs_or_prints_garbage_fails_no_stage() {
    for (name, injected) in [
        ("errors", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"),
        ("hangs", "sleep 60"),
        ("garbage", "echo 'slurm_load_jobs: <?xml '; exit 0"),
        ("half a line", "printf '1|N/A|RUN'; exit 0"),
        ("unknown states", "echo '1|N/A|A_STATE_OF_NEXT_YEAR|n1|b1 x|None'; exit 0"),
        ("other jobs of the same numbers", "echo '1|N/A|FAILED|n1|(null)|None'; sleep 0.01"),
    ] {
        let cluster = Cluster::stub(Pipeline::small());
        cluster.settings(IMPATIENT);
        cluster.inject("squeue.all", injected);
        let output = cluster.run(&[]);
        assert_eq!(output.code, Some(0), "{name}: {output}");
        assert_eq!(cluster.calls("sbatch"), 3, "{name}: {output}");
    }
}

#[test]
fn empty_answers_for_less_than_the_grace_fail_no_stage() {
    let cluster = waiting();
    cluster.settings(PATIENT);
    cluster.inject("squeue.2", "exit 0");
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the queue was asked three times", || cluster.calls("squeue") >= 3);
    cluster.go();
    assert_done(&run.wait());
    assert_eq!(cluster.calls("sbatch"), 1);
}

#[test]
fn a_submission_without_confirmation_is_found_in_the_queue() {
    for (name, injected) in [
        ("an error", "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1"),
        ("garbage", "echo 'Submitted, I think'; exit 0"),
        ("a hang", "sleep 60"),
    ] {
        let cluster = waiting();
        cluster.settings(IMPATIENT);
        cluster.inject("after.1", injected);
        let run = cluster.start(&["run", "p.yaml"]);
        wait_until("the queue was asked", || cluster.calls("squeue") >= 2);
        cluster.go();
        let output = run.wait();
        assert_eq!(output.code, Some(0), "{name}: {output}");
        assert_eq!(cluster.calls("sbatch"), 1, "{name}: {output}");
    }
}

#[test]
fn a_submission_that_failed_temporarily_is_repeated() {
    let cluster =
        Cluster::stub(Pipeline::new().stage("images", "{kind: fetch, dataset: synthetic, train: 2, test: 2}"));
    cluster.inject("sbatch.1", "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1");
    let output = cluster.run(&[]);
    assert_done(&output);
    assert!(output.stderr.contains("not submitted yet: Unable to contact slurm controller"), "{output}");
    assert_eq!(cluster.calls("sbatch"), 2);
}

#[test]
fn a_rejected_submission_fails_its_stage_with_slurms_message() {
    let cluster = Cluster::stub(Pipeline::small());
    cluster.inject("sbatch.1", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1");
    let output = cluster.run(&[]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("Slurm rejected the job: Batch job submission failed: Invalid account"), "{output}");
    assert_eq!(cluster.calls("sbatch"), 1);
}

#[test]
fn a_job_that_vanishes_before_it_starts_is_lost_and_retried_as_often_as_allowed() {
    let images = |retry: &str| {
        Pipeline::new().stage("images", &format!("{{kind: fetch, dataset: synthetic, train: 2, test: 2{retry}}}"))
    };
    let vanish = "put \"$STUB/next\" 8; cat > /dev/null; echo 7; exit 0";
    let cluster = Cluster::stub(images(""));
    cluster.inject("sbatch.1", vanish);
    let output = cluster.run(&[]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("job 7 is no longer in the queue"), "{output}");

    let cluster = Cluster::stub(images(", retry: {lost: 1}"));
    cluster.inject("sbatch.1", vanish);
    assert_done(&cluster.run(&[]));
    assert_eq!(cluster.calls("sbatch"), 2);
}

#[test]
fn ends_of_jobs_are_distinguished() {
    for (state, words) in [
        ("OUT_OF_MEMORY", "exceeded its memory limit (`resources.memory`)"),
        ("TIMEOUT", "exceeded its time limit (`resources.time`)"),
        ("NODE_FAIL", "was lost because its node failed"),
        ("PREEMPTED", "was preempted"),
        ("CANCELLED", "was cancelled"),
    ] {
        let cluster = waiting();
        let run = cluster.start(&["run", "p.yaml"]);
        wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
        cluster.inject("squeue.all", &format!("echo '1|N/A|{state}|n1|b1|None'; exit 0"));
        let output = run.wait();
        assert_eq!(output.code, Some(1), "{output}");
        assert!(output.stderr.contains(&format!("job 1 {words}")), "{state}: {output}");
        cluster.go();
    }
}

#[test]
fn accounting_shows_the_end_of_jobs_that_left_the_queue() {
    let cluster = waiting();
    cluster.settings(PATIENT);
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    cluster.inject("sacct.all", "echo '1|OUT_OF_MEMORY|n1'; exit 0");
    cluster.inject("squeue.all", "exit 0");
    let output = run.wait();
    assert!(output.stderr.contains("job 1 exceeded its memory limit"), "{output}");
    cluster.go();
}

#[test]
fn accounting_that_missed_the_end_of_a_job_does_not_block_the_run() {
    let cluster =
        Cluster::stub(Pipeline::new().stage("images", "{kind: fetch, dataset: synthetic, train: 2, test: 2}"));
    cluster.inject("sbatch.1", "cat > /dev/null; echo 7; exit 0");
    cluster.inject("sacct.all", "echo '7|RUNNING|n1'; exit 0");
    let output = cluster.run(&[]);
    assert!(output.code == Some(1) && output.stderr.contains("job 7 is no longer in the queue"), "{output}");
}

#[test]
fn an_unwatched_job_that_left_the_queue_is_lost_after_the_grace() {
    let cluster =
        Cluster::stub(Pipeline::new().stage("images", "{kind: fetch, dataset: synthetic, train: 2, test: 2}"));
    cluster.inject("sbatch.1", "cat > /dev/null; echo 7; exit 0");
    assert_done(&cluster.run(&["--detach"]));
    assert_eq!(cluster.status()["run"]["state"], "left");
    wait_until("the run has failed", || cluster.status()["run"]["state"] == "failed");
    let status = cluster.status();
    assert!(status["stages"][0]["error"].as_str().unwrap().contains("is no longer in the queue"), "{status:#}");
    assert_done(&cluster.srpipe(&["gc"]));
}

#[test]
fn a_run_that_another_process_cancels_submits_no_more_jobs() {
    let stage =
        |n: usize| format!("{{kind: command, command: [sh, -c, 'sleep 20; echo {n} > {{outputs.n}}'], outputs: [n]}}");
    let cluster = Cluster::stub(Pipeline::new().stage("a", &stage(1)).stage("b", &stage(2)));
    let run = cluster.start(&["run", "p.yaml", "--jobs", "1"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    assert_done(&cluster.srpipe(&["cancel", "p"]));
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert_eq!(cluster.calls("sbatch"), 1, "{output}");
    assert_eq!(cluster.record()["state"], "interrupted");
}

#[test]
fn cancelling_includes_jobs_whose_submission_was_not_confirmed() {
    let cluster = waiting();
    cluster.inject("after.1", "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1");
    cluster.inject("squeue.all", "exit 1");
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert_eq!(cluster.state("1.0"), "CANCELLED");
}

#[test]
fn signals_of_a_session_that_ends_cancel_no_jobs() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    run.signal("HUP");
    let output = run.wait();
    assert!(output.code == Some(130) && output.stderr.contains("left:"), "{output}");
    assert_eq!(cluster.state("1.0"), "RUNNING");
    cluster.go();
}

#[test]
fn a_job_that_is_cancelled_by_hand_is_not_retried_even_if_its_program_dies_first() {
    let stage = "{kind: command, command: [sh, -c, 'exec sleep 20'], outputs: [n], retry: {lost: 1}}";
    let Some(cluster) = Cluster::real(Pipeline::new().stage("sleep", stage)) else { return };
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.status()["stages"][0]["job"]["node"].is_string());
    std::thread::sleep(Duration::from_secs(1));
    slurm("scancel", &[&real_jobs(&cluster, "%i")[0]]);
    let output = run.wait();
    assert!(output.code == Some(1) && output.stderr.contains("was cancelled"), "{output}");
}

#[test]
fn detach_refuses_a_run_that_is_only_partly_submitted() {
    let cluster = Cluster::stub(
        Pipeline::new()
            .stage("a", "{kind: command, command: [sh, -c, 'sleep 3; echo 1 > {outputs.n}'], outputs: [n]}")
            .stage("b", "{kind: command, command: [cp, '{inputs.n}', '{outputs.n}'], inputs: {n: a/n}, outputs: [n]}"),
    );
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("KILL");
    run.wait();
    let output = cluster.run(&["--detach"]);
    assert!(output.code == Some(2) && output.stderr.contains("continues with 1 stage not submitted yet"), "{output}");
    assert_done(&cluster.run(&[]));
}

#[test]
fn a_detached_run_that_failed_runs_again_after_a_correction() {
    let stage = "{kind: command, command: [sh, -c, 'cat $IN > {outputs.n}'], env: {IN: PATH}, outputs: [n]}";
    let input = std::env::temp_dir().join(format!("srpipe-test-in-{}", std::process::id()));
    let cluster = Cluster::stub(Pipeline::new().stage("needs", &stage.replace("PATH", input.to_str().unwrap())));
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the job has failed", || cluster.state("1.0") == "FAILED");
    fs::write(&input, "1").unwrap();
    let output = cluster.run(&[]);
    fs::remove_file(&input).unwrap();
    assert_done(&output);
}

#[test]
fn gc_proceeds_once_all_jobs_have_ended() {
    let images = |test: usize| format!("{{kind: fetch, dataset: synthetic, train: 2, test: {test}}}");
    let cluster = Cluster::stub(Pipeline::new().stage("images", &images(2)));
    assert_done(&cluster.run(&["--detach"]));
    let file = cluster.folder.path().join("p.yaml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("test: 2", "test: 3")).unwrap();
    assert_done(&cluster.run(&["--detach"]));
    wait_until("both jobs are done", || ["1.0", "2.0"].iter().all(|job| cluster.state(job) == "COMPLETED"));
    let output = cluster.srpipe(&["gc"]);
    assert_done(&output);
}

#[test]
fn stages_that_were_never_submitted_are_not_shown_as_running() {
    let cluster = Cluster::stub(Pipeline::small());
    cluster.inject("sbatch.1", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1");
    let output = cluster.run(&["--detach"]);
    assert!(output.code == Some(1) && output.stderr.contains("Invalid account"), "{output}");
    let status = cluster.status();
    assert!(status["stages"].as_array().unwrap().iter().all(|stage| stage["state"] != "running"), "{status:#}");
    assert_done(&cluster.run(&[]));
}

#[test]
fn following_the_log_of_an_unwatched_run_ends_with_its_stage() {
    let cluster = waiting();
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the job runs", || cluster.status()["stages"][0]["state"] == "running");
    let logs = cluster.start(&["logs", "wait", "-f"]);
    cluster.go();
    assert_done(&logs.wait());
}

#[test]
fn a_run_can_be_submitted_from_within_a_job_array() {
    let cluster = Cluster::stub(Pipeline::small());
    let mut command = cluster.command(&["run", "p.yaml", "--detach"]);
    assert!(command.env("SLURM_ARRAY_TASK_ID", "3").status().unwrap().success());
    wait_until("the run is done", || cluster.status()["run"]["state"] == "ok");
}

#[test]
fn after_a_kill_the_next_run_watches_the_same_jobs_and_submits_none_twice() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("KILL");
    run.wait();
    assert_eq!(cluster.status()["run"]["state"], "left");
    let run = cluster.start(&["run", "p.yaml"]);
    cluster.go();
    assert_done(&run.wait());
    assert_eq!(cluster.calls("sbatch"), 1);
}

#[test]
fn status_records_jobs_that_ended_while_nobody_watched() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("KILL");
    run.wait();
    let status = cluster.status();
    assert_eq!(status["stages"][0]["job"], serde_json::json!({"id": "1", "node": "n1"}), "{status:#}");
    cluster.go();
    wait_until("the job is done", || cluster.state("1.0") == "COMPLETED");
    let status = cluster.status();
    assert_eq!(status["run"]["state"], "ok", "{status:#}");
    assert_eq!(status["stages"][0]["state"], "ran", "{status:#}");
    assert!(cluster.folder.runs().join("p/latest/wait/n").is_file());
}

#[test]
fn a_kill_around_a_submission_neither_duplicates_nor_loses_a_job() {
    for (name, when, submissions) in [("before", "sbatch.1", 2), ("after", "after.1", 1)] {
        let cluster = waiting();
        cluster.inject(when, "kill -9 $PPID; exit 1");
        let output = cluster.run(&[]);
        assert_eq!(output.signal, Some(9), "{name}: {output}");
        cluster.go();
        let output = cluster.run(&[]);
        assert_eq!(output.code, Some(0), "{name}: {output}");
        assert_eq!(cluster.calls("sbatch"), submissions, "{name}: {output}");
    }
}

#[test]
fn a_detached_run_needs_no_process() {
    let cluster = Cluster::stub(whole());
    let output = cluster.run(&["--detach"]);
    assert_done(&output);
    assert!(output.stderr.contains("6 jobs submitted as run"), "{output}");
    let submitted = cluster.submitted();
    assert_eq!(submitted.lines().filter(|line| line.contains("--dependency=afterok:")).count(), 5, "{submitted}");
    assert_eq!(submitted.lines().filter(|line| line.contains("--kill-on-invalid-dep=yes")).count(), 5, "{submitted}");
    let state = || cluster.status()["run"]["state"].as_str().unwrap_or_default().to_string();
    if state() == "left" {
        let gc = cluster.srpipe(&["gc"]);
        assert!(gc.code == Some(0) || gc.stderr.contains("continue without a process"), "{gc}");
    }
    wait_until("the run is done", || state() == "ok");
    let here = whole().folder();
    assert_done(&here.run(&[]));
    assert_eq!(cluster.folder.digests("compare"), here.digests("compare"));
    assert_done(&cluster.srpipe(&["gc"]));
}

#[test]
fn in_a_detached_run_stages_after_a_failure_are_skipped() {
    let broken = Pipeline::new()
        .stage("broken", "{kind: command, command: [sh, -c, 'echo no luck >&2; exit 3'], outputs: [n]}")
        .stage(
            "after",
            "{kind: command, command: [cp, '{inputs.n}', '{outputs.n}'], inputs: {n: broken/n}, outputs: [n]}",
        );
    let cluster = Cluster::stub(broken);
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the run has failed", || cluster.status()["run"]["state"] == "failed");
    let status = cluster.status();
    assert_eq!(status["stages"][0]["state"], "failed", "{status:#}");
    assert_eq!(status["stages"][1]["state"], "skipped", "{status:#}");
    assert!(status["stages"][0]["error"].as_str().unwrap().contains("exit"), "{status:#}");
}

#[test]
fn an_unwatched_run_blocks_gc() {
    let cluster = waiting();
    assert_done(&cluster.run(&["--detach"]));
    let gc = cluster.srpipe(&["gc"]);
    assert!(gc.code == Some(1) && gc.stderr.contains("continue without a process"), "{gc}");
    let cancel = cluster.srpipe(&["cancel", "p"]);
    assert!(cancel.stdout.contains("is cancelled"), "{cancel}");
    assert_eq!(cluster.state("1.0"), "CANCELLED");
    assert_eq!(cluster.record()["state"], "interrupted");
    assert_done(&cluster.srpipe(&["gc"]));
    let again = cluster.srpipe(&["cancel", "p"]);
    assert!(again.stdout.contains("nothing to cancel"), "{again}");
}

#[test]
fn a_second_interrupt_cancels_the_jobs() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml", "--json"]);
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    run.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cluster.state("1.0"), "RUNNING", "the first interrupt leaves it running");
    run.signal("INT");
    let output = run.wait();
    assert_eq!(output.code, Some(130), "{output}");
    assert_eq!(cluster.state("1.0"), "CANCELLED");
    assert_eq!(output.finished()["state"], "interrupted", "{output}");
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
#[ignore = "takes two minutes; run it by hand to measure"]
fn watching_a_thousand_jobs_costs_little() {
    let cluster = Cluster::stub(swept(1000));
    // None of the jobs starts; the stub prints a prepared answer.
    let rows = |batch: usize, tasks: usize| {
        (0..tasks).map(move |task| format!("{batch}|{task}|RUNNING|n{task}|b{batch} x|None\n")).collect::<String>()
    };
    cluster.inject("sbatch.4", "cat > /dev/null; echo 4; exit 0");
    cluster.inject("sbatch.5", "cat > /dev/null; echo 5; exit 0");
    fs::write(cluster.stub.as_ref().unwrap().join("rows"), rows(4, 500) + &rows(5, 500)).unwrap();
    // Its output is not read.
    let mut run = cluster.command(&["run", "p.yaml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("all is submitted", || cluster.calls("sbatch") == 5);
    cluster.inject("squeue.all", "exec cat \"$STUB/rows\"");
    std::thread::sleep(Duration::from_secs(10));
    let spent = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", run.id())).unwrap();
        let fields: Vec<f64> =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(4).map(|f| f.parse().unwrap()).collect();
        // Of the process and the commands that it waited for, in ticks of 10 ms.
        fields.iter().sum::<f64>() / 100.0
    };
    let (before, asked) = (spent(), cluster.calls("squeue"));
    std::thread::sleep(Duration::from_secs(100));
    let share = (spent() - before) / 100.0;
    println!("{:.2} % of a core, {} calls of squeue in 100 s", 100.0 * share, cluster.calls("squeue") - asked);
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(share < 0.01, "{share}");
}

/// Returns a field of the run's jobs in the real Slurm.
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

fn slurm(command: &str, args: &[&str]) {
    let folder = std::env::var("SRPIPE_TEST_SLURM").unwrap();
    let ended = Command::new(command).args(args).env("SLURM_CONF", Path::new(&folder).join("slurm.conf")).status();
    assert!(ended.unwrap().success(), "{command} {args:?}");
}

/// Waits until the training has progressed, and returns its job.
fn in_training(cluster: &Cluster) -> String {
    let has_progress = || {
        let status = cluster.status();
        let stages = status["stages"].as_array().cloned().unwrap_or_default();
        stages.iter().any(|stage| stage["name"] == "model" && stage["progress"]["done"].as_u64() >= Some(20))
    };
    wait_until("the training is under way", has_progress);
    real_jobs(cluster, "%i").pop().unwrap()
}

#[test]
fn real_results_are_identical_to_those_of_one_machine() {
    let Some(cluster) = Cluster::real(whole()) else { return };
    let here = whole().folder();
    assert_done(&here.run(&[]));
    assert_done(&cluster.run(&[]));
    for stage in ["model", "samples", "compare"] {
        assert_eq!(cluster.folder.digests(stage), here.digests(stage), "{stage}");
    }
}

#[test]
fn real_a_sweep_of_16_is_one_array() {
    let Some(cluster) = Cluster::real(swept(16)) else { return };
    let output = cluster.run(&["--json"]);
    assert_done(&output);
    let jobs: Vec<Value> =
        cluster.record()["stages"].as_array().unwrap().iter().map(|s| s["job"]["id"].clone()).collect();
    let in_array = jobs.iter().filter(|id| id.as_str().is_some_and(|id| id.contains('_'))).count();
    assert!(in_array >= 1, "{jobs:?}");
    assert_eq!(
        fs::read_dir(cluster.folder.runs().join("p/latest/.slurm"))
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
                name.starts_with("b4_") && name.ends_with(".out")
            })
            .count(),
        16
    );
}

#[test]
fn real_a_cancelled_job_resumes_in_the_next_run_with_identical_results() {
    let Some(cluster) = Cluster::real(long(600)) else { return };
    let here = long(600).folder();
    assert_done(&here.run(&[]));
    let run = cluster.start(&["run", "p.yaml"]);
    slurm("scancel", &[&in_training(&cluster)]);
    let output = run.wait();
    assert!(output.code == Some(1) && output.stderr.contains("was cancelled"), "{output}");
    let output = cluster.run(&[]);
    assert_done(&output);
    assert!(!output.stderr.contains("steps 0 to 600") && output.stderr.contains("to 600"), "{output}");
    assert_eq!(cluster.folder.digests("model"), here.digests("model"));
}

#[test]
fn real_a_training_at_its_time_limit_is_requeued_with_identical_results() {
    let Some(cluster) = Cluster::real(long(600)) else { return };
    let here = long(600).folder();
    assert_done(&here.run(&[]));
    let run = cluster.start(&["run", "p.yaml"]);
    // As Slurm does before the time limit.
    slurm("scancel", &["--batch", "--signal=USR2", &in_training(&cluster)]);
    let output = run.wait();
    assert_done(&output);
    assert!(output.stderr.contains("the job is requeued (1 of 3)"), "{output}");
    assert_eq!(cluster.folder.digests("model"), here.digests("model"));
}

#[test]
fn real_after_a_kill_the_next_run_watches_the_same_jobs() {
    let Some(cluster) = Cluster::real(long(600)) else { return };
    let run = cluster.start(&["run", "p.yaml"]);
    let job = in_training(&cluster);
    run.signal("KILL");
    run.wait();
    let first = cluster.record()["id"].clone();
    assert_done(&cluster.run(&[]));
    let record = cluster.record();
    assert_eq!(record["id"], first);
    assert_eq!(record["stages"].as_array().unwrap().last().unwrap()["job"]["id"], job.as_str());
}

#[test]
fn real_a_job_that_exceeds_its_memory_is_reported() {
    let hungry = "{kind: command, command: [sh, -c, 'x=$(head -c 900000000 /dev/zero | tr \"\\\\0\" a); sleep 20; echo $x'], \
                  outputs: [n], resources: {memory: 200 MB}}";
    let Some(cluster) = Cluster::real(Pipeline::new().stage("hungry", hungry)) else { return };
    let output = cluster.run(&[]);
    assert!(output.code == Some(1) && output.stderr.contains("exceeded its memory limit"), "{output}");
}

#[test]
fn real_a_run_survives_an_outage_of_the_controller() {
    let Some(cluster) = Cluster::real(long(1200)) else { return };
    let run = cluster.start(&["run", "p.yaml"]);
    in_training(&cluster);
    let folder = std::env::var("SRPIPE_TEST_SLURM").unwrap();
    slurm(&format!("{SCRIPTS}/start.sh"), &[&folder, "pause"]);
    std::thread::sleep(Duration::from_secs(8));
    slurm(&format!("{SCRIPTS}/start.sh"), &[&folder, "resume"]);
    assert_done(&run.wait());
}

#[test]
fn real_a_detached_run_needs_no_process() {
    let Some(cluster) = Cluster::real(whole()) else { return };
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the run is done", || cluster.status()["run"]["state"] == "ok");
    assert!(cluster.folder.runs().join("p/latest/compare/summary.json").is_file());
}

/// The pipeline, the settings and the commands of `docs/slurm.md`, with a few training steps on a few images.
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
    // A typo in the settings is an error, so they are read.
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
