//! Damaged, deleted, misplaced and unsealed records of jobs: no job is lost or submitted twice, and the message names
//! the file and the next step.

use super::damaged_runs::detached_with_input;
use super::*;

/// Inverts one bit in the middle of a file and returns the original bytes.
pub fn damage(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 4;
    fs::write(path, altered).unwrap();
    bytes
}

impl Cluster {
    /// Returns the path of a file in the folder of the latest run's jobs.
    pub fn job_file(&self, name: &str) -> PathBuf {
        self.folder.runs().join("p/latest/.slurm").join(name)
    }
}

#[test]
fn damaged_job_records_stop_a_run_with_a_message_and_can_be_cancelled() {
    let cluster = waiting();
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the run exists", || cluster.folder.runs().join("p/latest").exists());
    cluster.wait_for_start();
    run.signal("KILL");
    run.wait();
    for name in ["charter.json", "b1.json"] {
        let bytes = damage(&cluster.job_file(name));
        for args in [&["run", "p.yaml"][..], &["run", "p.yaml", "--detach"]] {
            let output = cluster.srpipe(args);
            assert!(output.code != Some(0) && output.stderr.contains(name), "{name}: {output}");
            assert!(output.stderr.contains("is damaged") && output.stderr.contains("srpipe cancel"), "{output}");
        }
        let status = cluster.srpipe(&["status", "p"]);
        assert!(status.code == Some(0) && status.stderr.contains(name), "{name}: {status}");
        let gc = cluster.srpipe(&["gc"]);
        assert!(gc.code == Some(1) && gc.stderr.contains(name), "{name}: {gc}");
        fs::write(cluster.job_file(name), bytes).unwrap();
    }
    assert_eq!(cluster.calls("sbatch"), 1);
    damage(&cluster.job_file("b1.json"));
    assert_done(&cluster.srpipe(&["cancel", "p"]));
    assert_eq!(cluster.state("1.0"), "CANCELLED");
    cluster.go();
    assert_done(&cluster.run(&[]));
}

#[test]
fn job_records_damaged_during_a_run_fail_its_later_jobs_with_a_message() {
    let mut cluster = waiting();
    let text = fs::read_to_string(cluster.folder.path().join("p.yaml")).unwrap();
    let copy = "{kind: command, command: [cp, '{inputs.n}', '{outputs.n}'], inputs: {n: wait/n}, outputs: [n]}";
    cluster.folder.write("p.yaml", format!("{}\n  copy: {copy}\n", text.trim_end()));
    cluster.settings("executor: slurm\nslurm: {grace: 1 s, timeout: 20 s}\n");
    let run = cluster.start(&["run", "p.yaml"]);
    wait_until("the run exists", || cluster.folder.runs().join("p/latest").exists());
    cluster.wait_for_start();
    let batch = damage(&cluster.job_file("b1.json"));
    let charter = damage(&cluster.job_file("charter.json"));
    cluster.go();
    let output = run.wait();
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("charter.json is damaged"), "{output}");
    assert_eq!(cluster.record()["stages"][0]["state"], "ran", "{output}");
    fs::write(cluster.job_file("b1.json"), batch).unwrap();
    fs::write(cluster.job_file("charter.json"), charter).unwrap();
    assert_done(&cluster.run(&[]));
    cluster.go = PathBuf::new();
}

#[test]
fn altered_bytes_in_the_files_of_jobs_change_no_result() {
    let cluster = Cluster::stub(Pipeline::small());
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the jobs are done", || (1..=3).all(|job| cluster.state(&format!("{job}.0")) == "COMPLETED"));
    let record = cluster.folder.runs().join("p/latest/run.json");
    let as_submitted = fs::read(&record).unwrap();
    let outcome = || {
        let status = cluster.status();
        let stages = status["stages"].as_array().unwrap().iter();
        let stages: Vec<_> = stages.map(|stage| (stage["state"].clone(), stage["key"].clone())).collect();
        (status["run"]["state"].clone(), stages)
    };
    let expected = outcome();
    assert_eq!(expected.0, "ok");
    let mut reported = 0;
    for entry in fs::read_dir(cluster.job_file("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(1.max(bytes.len() / 8)) {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            fs::write(&path, altered).unwrap();
            fs::write(&record, &as_submitted).unwrap();
            let output = cluster.srpipe(&["status", "p"]);
            match output.stderr.contains(&format!("{name} is damaged")) {
                true => reported += 1,
                // For example, the altered byte may be in the name of the checksum.
                false => assert_eq!(outcome(), expected, "byte {at} of {name}: {output}"),
            }
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(reported > 16, "{reported} reports");
}

impl Cluster {
    /// Returns the folder of the latest run.
    pub fn run_folder(&self) -> PathBuf {
        self.folder.runs().join("p/latest").canonicalize().unwrap()
    }

    /// Waits until the first job's process has read its records and started its stage.
    pub fn wait_for_start(&self) {
        let output = self.run_folder().join(".slurm/b1_0.out");
        wait_until("the stage starts", || fs::read_to_string(&output).is_ok_and(|text| text.contains("started")));
    }

    /// Returns the id of the latest run.
    pub fn run_id(&self) -> String {
        self.run_folder().file_name().unwrap().to_str().unwrap().to_string()
    }
}

/// Returns a cluster with a detached run whose job is running.
pub fn detached() -> Cluster {
    let cluster = waiting();
    assert_done(&cluster.run(&["--detach"]));
    cluster.wait_for_start();
    cluster
}

/// Returns a sealed JSON file without its checksum.
pub fn unsealed(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap();
    format!("{}}}\n", &text[..text.rfind(",\n\"sha256\"").unwrap()])
}

#[test]
fn jobs_of_a_run_with_a_damaged_record_keep_their_inputs_and_can_be_cancelled() {
    for by_id in [false, true] {
        let cluster = detached();
        let record = cluster.run_folder().join("run.json");
        damage(&record);
        let gc = cluster.srpipe(&["gc"]);
        assert_eq!(gc.code, Some(1), "{gc}");
        let id = cluster.run_id();
        assert!(gc.stderr.contains(&format!("`srpipe cancel {id}`, then remove")), "{gc}");
        let cancel = cluster.srpipe(&["cancel", if by_id { &id } else { "p" }]);
        assert_eq!(cancel.code, Some(0), "{cancel}");
        assert!(cancel.stderr.contains("run.json is damaged"), "{cancel}");
        assert_eq!(cluster.state("1.0"), "CANCELLED");
        fs::remove_dir_all(cluster.run_folder()).unwrap();
        assert_done(&cluster.srpipe(&["gc"]));
    }
}

#[test]
fn jobs_of_a_run_without_a_record_keep_their_inputs() {
    let cluster = detached();
    fs::remove_file(cluster.run_folder().join("run.json")).unwrap();
    let gc = cluster.srpipe(&["gc"]);
    assert!(gc.code == Some(1) && gc.stderr.contains("run.json"), "{gc}");
    assert!(cluster.run_folder().join(".slurm/b1.json").exists());
}

#[test]
fn jobs_whose_batch_record_was_deleted_are_reported_and_not_submitted_again() {
    let two = Pipeline::new()
        .stage("a", "{kind: command, command: [sh, -c, 'sleep 30; echo 1 > {outputs.n}'], outputs: [n]}")
        .stage("b", "{kind: command, command: [cp, '{inputs.n}', '{outputs.n}'], inputs: {n: a/n}, outputs: [n]}");
    let cluster = Cluster::stub(two);
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the job runs", || cluster.state("1.0") == "RUNNING");
    for names in [&["b1.json"][..], &["b2.json"], &["b1.json", "b2.json"]] {
        let kept: Vec<_> = names.iter().map(|name| fs::read(cluster.job_file(name)).unwrap()).collect();
        names.iter().for_each(|name| fs::remove_file(cluster.job_file(name)).unwrap());
        let status = cluster.srpipe(&["status", "p"]);
        assert!(status.stderr.contains(&format!("{} is missing", names[0])), "{names:?}: {status}");
        for args in [&["run", "p.yaml"][..], &["run", "p.yaml", "--detach"]] {
            let output = cluster.srpipe(args);
            assert_eq!(output.code, Some(1), "{names:?}: {output}");
            assert!(output.stderr.contains(&format!("{} is missing", names[0])), "{names:?}: {output}");
            assert!(output.stderr.contains("srpipe cancel"), "{names:?}: {output}");
        }
        names.iter().zip(kept).for_each(|(name, bytes)| fs::write(cluster.job_file(name), bytes).unwrap());
    }
    assert_eq!(cluster.calls("sbatch"), 2);
    assert_done(&cluster.srpipe(&["cancel", "p"]));
}

#[test]
fn the_spec_of_another_run_is_refused() {
    let cluster = detached();
    let first = cluster.run_folder();
    let path = cluster.folder.path().join("p.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let copy = "{kind: command, command: [cp, '{inputs.n}', '{outputs.n}'], inputs: {n: wait/n}, outputs: [n]}";
    fs::write(&path, format!("{}\n  copy: {copy}\n", text.trim_end())).unwrap();
    assert_done(&cluster.run(&["--detach"]));
    let second = cluster.run_folder();
    assert_ne!(first, second);
    fs::copy(second.join(".slurm/charter.json"), first.join(".slurm/charter.json")).unwrap();
    let id = first.file_name().unwrap().to_str().unwrap();
    let status = cluster.srpipe(&["status", id]);
    assert!(status.code == Some(0) && status.stderr.contains("charter.json is damaged"), "{status}");
    fs::remove_dir_all(&second).unwrap();
    let run = cluster.srpipe(&["run", "p.yaml"]);
    assert!(run.code == Some(1) && run.stderr.contains("charter.json is damaged"), "{run}");
    assert_done(&cluster.srpipe(&["cancel", id]));
    assert_eq!(cluster.state("1.0"), "CANCELLED");
}

#[test]
fn a_batch_record_under_the_name_of_another_is_refused() {
    let cluster = Cluster::stub(Pipeline::small());
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the jobs are done", || (1..=3).all(|job| cluster.state(&format!("{job}.0")) == "COMPLETED"));
    fs::copy(cluster.job_file("b2.json"), cluster.job_file("b1.json")).unwrap();
    let status = cluster.srpipe(&["status", "p"]);
    assert!(status.stderr.contains("b1.json is damaged"), "{status}");
}

#[test]
fn following_the_log_of_a_run_with_damaged_job_records_ends_with_an_error() {
    for name in ["charter.json", "b1.json"] {
        let cluster = detached();
        wait_until("the stage has a key", || cluster.status()["stages"][0]["state"] == "running");
        damage(&cluster.job_file(name));
        let logs = cluster.start(&["logs", "wait", "-f"]);
        cluster.go();
        let output = logs.wait();
        assert!(output.code == Some(1) && output.stderr.contains(&format!("{name} is damaged")), "{output}");
    }
}

#[test]
fn jobs_are_cancelled_even_if_the_folder_of_their_records_is_unusable() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("a file", |folder| {
            fs::rename(folder, folder.with_file_name("moved")).unwrap();
            fs::write(folder, "").unwrap();
        }),
        ("a link loop", |folder| {
            fs::rename(folder, folder.with_file_name("moved")).unwrap();
            std::os::unix::fs::symlink(folder, folder).unwrap();
        }),
        ("a folder as marker", |folder| fs::create_dir(folder.join("cancelled")).unwrap()),
    ];
    for (name, damage) in damages {
        let cluster = detached();
        damage(&cluster.run_folder().join(".slurm"));
        let output = cluster.srpipe(&["cancel", "p"]);
        assert_eq!(output.code, Some(0), "{name}: {output}");
        assert_eq!(cluster.state("1.0"), "CANCELLED", "{name}: {output}");
        assert_eq!(cluster.record()["state"], "interrupted", "{name}: {output}");
    }
}

#[test]
fn an_event_that_cannot_be_read_is_reported_with_the_name_of_its_file() {
    let cluster =
        Cluster::stub(Pipeline::new().stage("fails", "{kind: command, command: [sh, -c, 'exit 3'], outputs: [n]}"));
    assert_done(&cluster.run(&["--detach"]));
    wait_until("the job has failed", || cluster.state("1.0") == "FAILED");
    let path = cluster.job_file("b1_0.out");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"failed\""), "{text}");
    fs::write(&path, text.replace("\"failed\"", "\"faileD\"")).unwrap();
    let status = cluster.srpipe(&["status", "p"]);
    assert!(status.stderr.contains("b1_0.out is damaged"), "{status}");
}

#[test]
fn a_forced_stage_with_a_new_result_counts_as_done_even_if_its_last_event_is_damaged() {
    let cluster = Cluster::stub(Pipeline::small());
    assert_done(&cluster.run(&[]));
    let before = cluster.calls("sbatch");
    std::thread::sleep(Duration::from_millis(1100));
    assert_done(&cluster.run(&["--detach", "--force", "images"]));
    wait_until("the job is done", || cluster.state(&format!("{}.0", before + 1)) == "COMPLETED");
    let path = cluster.job_file("b1_0.out");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"done\"", "\"dome\"")).unwrap();
    wait_until("the run is done", || cluster.status()["run"]["state"] != "left");
    assert_eq!(cluster.status()["stages"][0]["state"], "ran", "{:#}", cluster.status());
}

#[test]
fn a_job_that_finds_its_record_damaged_names_the_file_and_the_next_step() {
    let two = Pipeline::new()
        .stage("a", "{kind: command, command: [sh, -c, 'sleep 1; echo 1 > {outputs.n}'], outputs: [n]}")
        .stage("b", "{kind: command, command: [cp, '{inputs.n}', '{outputs.n}'], inputs: {n: a/n}, outputs: [n]}");
    let cluster = Cluster::stub(two);
    assert_done(&cluster.run(&["--detach"]));
    let intact = damage(&cluster.job_file("b2.json"));
    wait_until("the second job has ended", || cluster.state("2.0") == "FAILED");
    fs::write(cluster.job_file("b2.json"), intact).unwrap();
    wait_until("the run has failed", || cluster.status()["run"]["state"] == "failed");
    let status = cluster.status();
    let error = status["stages"][1]["error"].as_str().unwrap();
    assert!(error.starts_with("b2.json is damaged"), "{error}");
    assert!(error.contains(&format!("srpipe cancel {}", cluster.run_id())), "{error}");
}

#[test]
fn job_records_without_a_checksum_are_refused_unless_an_old_version_wrote_them() {
    let cluster = detached();
    for name in ["charter.json", "b1.json"] {
        let sealed = fs::read(cluster.job_file(name)).unwrap();
        fs::write(cluster.job_file(name), unsealed(&sealed)).unwrap();
        let status = cluster.srpipe(&["status", "p"]);
        assert!(status.stderr.contains(&format!("{name} is damaged: the checksum is missing")), "{status}");
        let record = cluster.run_folder().join("run.json");
        let new = fs::read(&record).unwrap();
        let version = format!("\"srpipe_version\": \"{}\"", env!("CARGO_PKG_VERSION"));
        fs::write(&record, unsealed(&new).replace(&version, "\"srpipe_version\": \"0.1.0\"")).unwrap();
        let status = cluster.srpipe(&["status", "p"]);
        assert!(!status.stderr.contains(name), "{status}");
        fs::write(&record, new).unwrap();
        fs::write(cluster.job_file(name), sealed).unwrap();
    }
}

#[test]
fn records_of_batches_with_other_names_are_ignored() {
    let cluster = detached_with_input();
    for name in ["b01.json", "b+1.json", "b1 .json"] {
        fs::copy(cluster.job_file("b1.json"), cluster.job_file(name)).unwrap();
    }
    let status = cluster.srpipe(&["status", "p"]);
    assert!(status.code == Some(0) && status.stderr.is_empty(), "{status}");
}

#[test]
fn damaged_job_records_are_found_by_verify_and_reported_once_by_status() {
    for name in ["charter.json", "b1.json"] {
        let cluster = detached();
        assert_done(&cluster.srpipe(&["verify"]));
        damage(&cluster.job_file(name));
        let verify = cluster.srpipe(&["verify"]);
        assert!(verify.code == Some(1) && verify.stdout.contains(&format!("{name} is damaged")), "{verify}");
        let before = cluster.calls("squeue");
        let status = cluster.srpipe(&["status", "p"]);
        assert_eq!(status.stderr.matches(&format!("{name} is damaged")).count(), 1, "{status}");
        assert_eq!(cluster.calls("squeue"), before + 1);
    }
}

#[test]
fn a_folder_in_place_of_the_lock_is_reported_with_the_next_step() {
    let cluster = detached();
    let lock = cluster.run_folder().join(".lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let cancel = cluster.srpipe(&["cancel", "p"]);
    assert!(cancel.code == Some(1) && cancel.stderr.contains(".lock is a folder: remove it"), "{cancel}");
    assert_eq!(cluster.state("1.0"), "CANCELLED");
    fs::remove_dir(&lock).unwrap();
    assert_done(&cluster.srpipe(&["cancel", "p"]));
    assert_done(&cluster.srpipe(&["gc"]));
}
