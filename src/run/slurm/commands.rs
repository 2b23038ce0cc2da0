//! Slurm's commands: `sbatch`, `squeue`, `sacct`, `scancel`, `scontrol`. Each may fail, hang, or print something that
//! cannot be parsed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::states;
use crate::run::batch::command::{first_line, run_command};
use crate::run::batch::secrets;
use crate::run::batch::system::{Dependency, JobState, Jobs, QueuedJob, Refusal, Submission};

/// Submits a script with `sbatch` and returns the job's number.
pub(super) fn sbatch(submission: &Submission, timeout: Duration) -> Result<u64, Refusal> {
    let mut command = Command::new("sbatch");
    command.arg("--parsable").args(options(submission));
    match submission.secrets {
        Some(secrets) => command.env(secrets::VARIABLE, secrets),
        None => command.env_remove(secrets::VARIABLE),
    };
    // The submitting process may be a job itself, whose variables would override the options of the new job.
    const FOR_COMMANDS: [&str; 4] = ["SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"];
    let is_of_job = |name: &str| name.starts_with("SLURM_") && !FOR_COMMANDS.contains(&name);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_job)) {
        command.env_remove(name);
    }
    let script = script(submission.exe, submission.record);
    let output =
        run_command(&mut command, &script, timeout).map_err(|error| Refusal::Uncertain(format!("{error:#}")))?;
    if !output.ok {
        return Err(refusal(&output.stderr));
    }
    // The output is the job's number, followed on some clusters by a semicolon and the cluster's name.
    let id = output.stdout.trim().split(';').next().and_then(|id| id.parse().ok());
    id.ok_or_else(|| Refusal::Uncertain(format!("sbatch printed {:?}", first_line(&output.stdout))))
}

/// Returns the options of `sbatch` for a submission.
fn options(submission: &Submission) -> Vec<String> {
    let is_array = submission.tasks > 1;
    let folder = submission.folder.display().to_string().replace('%', "%%");
    let task = if is_array { "%a" } else { "0" };
    let output = format!("{folder}/{}_{task}", submission.tag);
    let mut options = submission.options.clone();
    options.push(format!("--job-name={}", submission.run_id));
    options.push(format!("--comment={}", submission.comment));
    options.push(format!("--output={output}.out"));
    options.push(format!("--error={output}.err"));
    if is_array {
        options.push(format!("--array=0-{}", submission.tasks - 1));
    }
    if !submission.after.is_empty() {
        let conditions: Vec<String> = submission.after.iter().map(condition).collect();
        options.push(format!("--dependency={}", conditions.join(",")));
        options.push("--kill-on-invalid-dep=yes".into());
    }
    options
}

fn condition(Dependency { job, by_task }: &Dependency) -> String {
    format!("{}:{job}", if *by_task { "aftercorr" } else { "afterok" })
}

fn refusal(stderr: &str) -> Refusal {
    let text = first_line(stderr.trim().trim_start_matches("sbatch: error: "));
    let contains = |words: &[&str]| words.iter().any(|word| stderr.to_ascii_lowercase().contains(word));
    match () {
        () if contains(&["submit limit", "maxsubmit", "maximum number of jobs"]) => Refusal::TooManyJobs(text),
        () if contains(&[
            "unable to contact",
            "timed out",
            "temporarily",
            "connection",
            "communication",
            "standby",
            "zero bytes",
            "try again",
        ]) =>
        {
            Refusal::Uncertain(text)
        }
        // Perhaps sbatch is a wrapper that was killed.
        () if text.is_empty() => Refusal::Uncertain("sbatch failed without an error message".into()),
        () => Refusal::Permanent(text),
    }
}

/// Returns all jobs of a run in the queue, in any state. `squeue` finds them by their name.
pub fn squeue(run_id: &str, timeout: Duration) -> Result<Jobs> {
    let mut command = Command::new("squeue");
    // The controller sends only the user's own jobs.
    command.arg(format!("--user={}", rustix::process::getuid().as_raw()));
    command.args(["--noheader", "--array", "--states=all", "--format=%F|%K|%T|%N|%k|%r"]);
    command.arg(format!("--name={run_id}"));
    let output = run_command(&mut command, "", timeout)?;
    if !output.ok {
        bail!("squeue: {}", first_line(&output.stderr));
    }
    parse_jobs(&output.stdout)
}

/// Parses the output of `squeue`. A line that cannot be parsed is an error, because others may be missing too. Jobs
/// without a comment of srpipe are skipped.
fn parse_jobs(text: &str) -> Result<Jobs> {
    let mut jobs = Jobs::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.trim().splitn(6, '|').collect();
        let [id, task, state, node, comment, reason] = fields[..] else {
            bail!("squeue printed {:?}", first_line(line));
        };
        let number: u64 = id.parse().with_context(|| format!("squeue printed {:?}", first_line(line)))?;
        let Some(batch) = comment.split(' ').next().and_then(|tag| tag.strip_prefix('b')?.parse().ok()) else {
            continue;
        };
        let task: Option<usize> = task.parse().ok();
        let id = task.map_or(number.to_string(), |task| format!("{number}_{task}"));
        let job = QueuedJob { id, state: states::parse(state, reason, node) };
        // If two jobs have the same tag and task, a live one takes precedence, then the later one.
        let task_id = (batch, task.unwrap_or(0));
        let rank = |job: &QueuedJob| (!matches!(job.state, JobState::Ended(_)), job.id.len(), job.id.clone());
        match jobs.get(&task_id) {
            Some(other) if rank(other) > rank(&job) => {}
            _ => drop(jobs.insert(task_id, job)),
        }
    }
    Ok(jobs)
}

/// Converts a time in RFC 3339 to the format of `sacct`: local time, without a zone or fractions of a second. The
/// result is one hour earlier, because clocks differ.
fn sacct_time(time: &str) -> Result<String> {
    let time: jiff::Timestamp = time.parse().context("parsing the start time of the run")?;
    let early = (time - jiff::SignedDuration::from_hours(1)).to_zoned(jiff::tz::TimeZone::system());
    Ok(early.strftime("%Y-%m-%dT%H:%M:%S").to_string())
}

/// Returns the states of a run's jobs by their ids; None if the cluster has no accounting.
pub(super) fn sacct(run_id: &str, since: &str, timeout: Duration) -> Result<Option<BTreeMap<String, JobState>>> {
    let mut command = Command::new("sacct");
    command.args(["--noheader", "--parsable2", "--allocations", "--duplicates", "--format=JobID,State,NodeList"]);
    command.arg(format!("--name={run_id}")).arg(format!("--starttime={}", sacct_time(since)?));
    let output = run_command(&mut command, "", timeout)?;
    if !output.ok && output.stderr.contains("disabled") {
        return Ok(None);
    }
    if !output.ok {
        bail!("sacct: {}", first_line(&output.stderr));
    }
    let job = |line: &str| {
        let mut fields = line.split('|');
        let (id, state) = (fields.next()?, fields.next()?);
        Some((id.to_string(), states::parse(state, "", fields.next().unwrap_or_default())))
    };
    Ok(Some(output.stdout.lines().filter_map(job).collect()))
}

/// Cancels all jobs of a run.
pub(super) fn scancel(run_id: &str, timeout: Duration) -> Result<()> {
    run_checked("scancel", &[&format!("--name={run_id}")], timeout)
}

/// Requeues a running job.
pub(super) fn requeue(job: &str, timeout: Duration) -> Result<()> {
    run_checked("scontrol", &["requeue", job], timeout)
}

/// Lets a requeued job start as soon as resources are free; otherwise it waits for minutes.
pub(super) fn start_now(job: &str, timeout: Duration) -> Result<()> {
    run_checked("scontrol", &["update", &format!("JobId={job}"), "StartTime=now"], timeout)
}

/// Runs a command and ignores its output. Fails if the command fails.
fn run_checked(name: &str, args: &[&str], timeout: Duration) -> Result<()> {
    let output = run_command(Command::new(name).args(args), "", timeout)?;
    if !output.ok {
        bail!("{name}: {}", first_line(&output.stderr));
    }
    Ok(())
}

/// Whether Slurm considers a job running: false once the job was cancelled or its time is up.
pub(super) fn is_running(job: &str, timeout: Duration) -> bool {
    let output = run_command(Command::new("squeue").args(["--noheader", "--format=%T", "--jobs", job]), "", timeout);
    output.is_ok_and(|output| output.ok && output.stdout.trim() == "RUNNING")
}

/// Checks that Slurm's commands are on the `PATH`. The error contains a remedy.
pub fn check_available() -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    match ["sbatch", "squeue", "scancel"].iter().find(|name| !has(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "the executor `slurm` needs Slurm's commands, but `{name}` is not on the PATH: start srpipe on a login node \
             of the cluster, or run on this machine with `--executor local`"
        )),
    }
}

/// Returns the script of a job.
fn script(exe: &Path, record: &Path) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    // `exec` replaces the shell, so that Slurm's signals reach srpipe.
    format!("#!/bin/sh\nexec {} exec --job {}\n", quoted(exe), quoted(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::batch::system::End;

    #[test]
    fn jobs_are_identified_by_their_comments() {
        let text = "\
12|N/A|RUNNING|n1|b1 0a1b|None
13|0|PENDING||b2 0a1c +15|Resources
13|11|COMPLETED|n2|b2 0a1c +15|None
14|N/A|PENDING||(null)|Priority
";
        let jobs = parse_jobs(text).unwrap();
        assert_eq!(jobs.len(), 3);
        assert_eq!(jobs[&(1, 0)], QueuedJob { id: "12".into(), state: JobState::Running { node: "n1".into() } });
        assert_eq!(jobs[&(2, 0)].id, "13_0");
        assert_eq!(jobs[&(2, 0)].state, JobState::Queued { reason: "Resources".into(), is_delayed: false });
        assert_eq!(jobs[&(2, 11)].state, JobState::Ended(End::Completed));
    }

    #[test]
    fn a_live_job_of_a_task_takes_precedence_and_then_the_later_one() {
        let of = |lines: [&str; 2]| parse_jobs(&lines.join("\n")).unwrap()[&(1, 0)].id.clone();
        let (ended, live, later) = ("9|N/A|FAILED||b1|", "8|N/A|RUNNING||b1|", "10|N/A|RUNNING||b1|");
        assert_eq!(of([ended, live]), "8");
        assert_eq!(of([live, ended]), "8");
        assert_eq!(of([live, later]), "10");
        assert_eq!(of([later, live]), "10");
    }

    #[test]
    fn output_with_a_line_that_cannot_be_parsed_is_an_error() {
        assert!(parse_jobs("").unwrap().is_empty());
        for garbage in ["slurm_load_jobs error", "1|2|3", "x|N/A|RUNNING|n|b1|None", "12|N/A|RUNN"] {
            assert!(parse_jobs(&format!("12|N/A|RUNNING|n1|b1|None\n{garbage}\n")).is_err(), "{garbage}");
        }
    }

    #[test]
    fn refusals_are_distinguished() {
        let permanent = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination";
        assert!(matches!(
            refusal(permanent),
            Refusal::Permanent(text) if text.starts_with("Batch job submission failed: Inv")
        ));
        for uncertain in [
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
            "",
        ] {
            assert!(matches!(refusal(uncertain), Refusal::Uncertain(_)), "{uncertain}");
        }
        let many = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates \
                    accounting/QOS policy (job submit limit, user's size and/or time limits)";
        assert!(matches!(refusal(many), Refusal::TooManyJobs(_)));
    }

    #[test]
    fn times_for_sacct_are_local_and_in_seconds() {
        let text = sacct_time("2026-11-27T01:00:00.123456789Z").unwrap();
        let digits: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(digits, "0000-00-00T00:00:00", "{text}");
        assert!(sacct_time("yesterday").is_err());
    }

    #[test]
    fn a_script_quotes_its_paths() {
        let script = script(Path::new("/a b/srpipe"), Path::new("/it's/b1.json"));
        assert_eq!(script, "#!/bin/sh\nexec '/a b/srpipe' exec --job '/it'\\''s/b1.json'\n");
    }

    #[test]
    fn a_submission_becomes_options() {
        let after = [Dependency { job: 20, by_task: false }, Dependency { job: 30, by_task: true }];
        let array = Submission {
            run_id: "r",
            comment: "b4 0a +1".into(),
            options: vec!["--mem=1M".into()],
            tasks: 2,
            after: &after,
            folder: Path::new("/100%/r"),
            tag: "b4".into(),
            exe: Path::new("srpipe"),
            record: Path::new("b4.json"),
            secrets: None,
        };
        assert_eq!(
            options(&array).join(" "),
            "--mem=1M --job-name=r --comment=b4 0a +1 --output=/100%%/r/b4_%a.out --error=/100%%/r/b4_%a.err \
             --array=0-1 --dependency=afterok:20,aftercorr:30 --kill-on-invalid-dep=yes"
        );
        let one = Submission { tasks: 1, after: &[], ..array };
        assert!(options(&one).contains(&"--output=/100%%/r/b4_0.out".to_string()));
    }
}
