//! Slurm's commands: `sbatch`, `squeue`, `sacct`, `scancel`, and what they say. Each may fail, hang, or answer nonsense.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command::{answer, shortened};
use super::job_outcome::JobState;
use super::secrets;

/// No command of Slurm takes longer where its controller answers at all.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A job as the place in the run's job_store that it was submitted for: the batch, and the task of it.
pub type TaskId = (usize, usize);

/// The jobs of one run as Slurm sees them.
pub type Jobs = BTreeMap<TaskId, Row>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// As Slurm's commands take it: of a task of an array `12_3`.
    pub id: String,
    pub state: JobState,
}

impl Row {
    /// The number that a task of an array shares with the others.
    pub fn job(&self) -> Option<u64> {
        self.id.split('_').next()?.parse().ok()
    }
}

/// Why `sbatch` took nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It will not take this job, however often it is asked.
    Never(String),
    /// Not as long as there are so many others.
    TooMany(String),
    /// It may even have taken it: the queue tells.
    Uncertain(String),
}

/// What tells the jobs of a batch from others of the run; the rest of the comment is for people.
pub fn tag(batch: usize) -> String {
    format!("b{batch}")
}

/// Submits a script with `sbatch`; returns the job's number. `secrets` go into the job's environment.
pub fn sbatch(options: &[String], script: &str, secrets: Option<&str>, timeout: Duration) -> Result<u64, Refusal> {
    let mut command = Command::new("sbatch");
    command.arg("--parsable").args(options);
    match secrets {
        Some(secrets) => command.env(secrets::VARIABLE, secrets),
        None => command.env_remove(secrets::VARIABLE),
    };
    // Whoever submits may be a job itself: what Slurm has told it of itself is not for others.
    const OF_COMMANDS: [&str; 4] = ["SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"];
    let told = |name: &str| name.starts_with("SLURM_") && !OF_COMMANDS.contains(&name);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        command.env_remove(name);
    }
    let said = answer(&mut command, script, timeout).map_err(|error| Refusal::Uncertain(format!("{error:#}")))?;
    if !said.ok {
        return Err(refusal(&said.stderr));
    }
    // The number, and the cluster after a semicolon.
    let id = said.stdout.trim().split(';').next().and_then(|id| id.parse().ok());
    id.ok_or_else(|| Refusal::Uncertain(format!("sbatch answered {:?}", shortened(&said.stdout))))
}

fn refusal(stderr: &str) -> Refusal {
    let text = shortened(stderr.trim().trim_start_matches("sbatch: error: "));
    let says = |words: &[&str]| words.iter().any(|word| stderr.to_ascii_lowercase().contains(word));
    match () {
        () if says(&["submit limit", "maxsubmit", "maximum number of jobs"]) => Refusal::TooMany(text),
        () if says(&[
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
        // A wrapper or a shell that died.
        () if text.is_empty() => Refusal::Uncertain("sbatch failed without a word".into()),
        () => Refusal::Never(text),
    }
}

/// Asks for all jobs of a run, of whatever state, by its name. Only the user's own jobs are sent by the controller.
pub fn squeue(run: &str, timeout: Duration) -> Result<Jobs> {
    let mut command = Command::new("squeue");
    command.arg(format!("--user={}", rustix::process::getuid().as_raw()));
    command.args(["--noheader", "--array", "--states=all", "--format=%F|%K|%T|%N|%k|%r"]).arg(format!("--name={run}"));
    let said = answer(&mut command, "", timeout)?;
    if !said.ok {
        bail!("squeue: {}", shortened(&said.stderr));
    }
    jobs(&said.stdout)
}

/// An answer with a line that cannot be read may lack others as well, and is none. Lines of jobs without our comment are
/// passed over.
fn jobs(text: &str) -> Result<Jobs> {
    let mut jobs = Jobs::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.trim().splitn(6, '|').collect();
        let [id, task, state, node, comment, reason] = fields[..] else {
            bail!("squeue answered {:?}", shortened(line));
        };
        let number: u64 = id.parse().with_context(|| format!("squeue answered {:?}", shortened(line)))?;
        let Some(batch) = comment.split(' ').next().and_then(|tag| tag.strip_prefix('b')?.parse().ok()) else {
            continue;
        };
        let task: Option<usize> = task.parse().ok();
        let id = task.map_or(number.to_string(), |task| format!("{number}_{task}"));
        let row = Row { id, state: JobState::parse(state, reason, node) };
        // Of two for one place, one that lives counts, then the later one.
        let place = (batch, task.unwrap_or(0));
        let rank = |row: &Row| (!matches!(row.state, JobState::Ended(_)), row.id.len(), row.id.clone());
        match jobs.get(&place) {
            Some(other) if rank(other) > rank(&row) => {}
            _ => drop(jobs.insert(place, row)),
        }
    }
    Ok(jobs)
}

/// A moment as `sacct` takes it: of local time, without a zone or parts of a second. An hour is taken off, for clocks that
/// differ.
fn local(moment: &str) -> Result<String> {
    let moment: jiff::Timestamp = moment.parse().context("reading when the run began")?;
    let early = (moment - jiff::SignedDuration::from_hours(1)).to_zoned(jiff::tz::TimeZone::system());
    Ok(early.strftime("%Y-%m-%dT%H:%M:%S").to_string())
}

/// The states of a run's jobs by their ids, from the accounting, where there is one.
pub fn sacct(run: &str, since: &str, timeout: Duration) -> Result<BTreeMap<String, JobState>> {
    let mut command = Command::new("sacct");
    command.args(["--noheader", "--parsable2", "--allocations", "--duplicates", "--format=JobID,State,NodeList"]);
    let said = answer(command.arg(format!("--name={run}")).arg(format!("--starttime={}", local(since)?)), "", timeout)?;
    if !said.ok {
        bail!("sacct: {}", shortened(&said.stderr));
    }
    let row = |line: &str| {
        let mut fields = line.split('|');
        let (id, state) = (fields.next()?, fields.next()?);
        Some((id.to_string(), JobState::parse(state, "", fields.next().unwrap_or_default())))
    };
    Ok(said.stdout.lines().filter_map(row).collect())
}

/// Ends all jobs of a run.
pub fn scancel(run: &str, timeout: Duration) -> Result<()> {
    let said = answer(Command::new("scancel").arg(format!("--name={run}")), "", timeout)?;
    if !said.ok {
        bail!("scancel: {}", shortened(&said.stderr));
    }
    Ok(())
}

/// Puts a running job into the queue again.
pub fn requeue(job: &str) -> Result<()> {
    let said = answer(Command::new("scontrol").args(["requeue", job]), "", TIMEOUT)?;
    if !said.ok {
        bail!("scontrol: {}", shortened(&said.stderr));
    }
    Ok(())
}

/// Lets a job of the queue start as soon as there is room: one that was put there again waits for minutes otherwise.
pub fn start_now(job: &str, timeout: Duration) -> Result<()> {
    let said =
        answer(Command::new("scontrol").args(["update", &format!("JobId={job}"), "StartTime=now"]), "", timeout)?;
    if !said.ok {
        bail!("scontrol: {}", shortened(&said.stderr));
    }
    Ok(())
}

/// Whether Slurm lets a job run on: not, once it was cancelled or its time was up.
pub fn is_running(job: &str) -> bool {
    let said = answer(Command::new("squeue").args(["--noheader", "--format=%T", "--jobs", job]), "", TIMEOUT);
    said.is_ok_and(|said| said.ok && said.stdout.trim() == "RUNNING")
}

/// Whether there is a Slurm to submit to; the error says what to do.
pub fn is_there() -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    match ["sbatch", "squeue", "scancel"].iter().find(|name| !has(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "the executor `slurm` needs Slurm's commands, and there is no `{name}` on the PATH: start srpipe on a login \
             node of the cluster, or run here with `--executor local`"
        )),
    }
}

/// The script of a job that runs `srpipe exec` for one batch.
pub fn script(exe: &Path, batch: &Path) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    // In the shell's place, so that Slurm's signals reach it.
    format!("#!/bin/sh\nexec {} exec --job {}\n", quoted(exe), quoted(batch))
}

#[cfg(test)]
mod tests {
    use super::super::job_outcome::End;
    use super::*;

    #[test]
    fn jobs_are_found_by_their_comments() {
        let text = "\
12|N/A|RUNNING|n1|b1 0a1b|None
13|0|PENDING||b2 0a1c +15|Resources
13|11|COMPLETED|n2|b2 0a1c +15|None
14|N/A|PENDING||(null)|Priority
";
        let jobs = jobs(text).unwrap();
        assert_eq!(jobs.len(), 3);
        assert_eq!(jobs[&(1, 0)], Row { id: "12".into(), state: JobState::Running { node: "n1".into() } });
        assert_eq!(jobs[&(2, 0)].id, "13_0");
        assert_eq!(jobs[&(2, 0)].state, JobState::Queued { reason: "Resources".into() });
        assert_eq!(jobs[&(2, 11)].state, JobState::Ended(End::Completed));
    }

    #[test]
    fn of_two_jobs_for_one_place_the_living_and_then_the_later_counts() {
        let of = |lines: [&str; 2]| jobs(&lines.join("\n")).unwrap()[&(1, 0)].id.clone();
        let (loss, alive, later) = ("9|N/A|FAILED||b1|", "8|N/A|RUNNING||b1|", "10|N/A|RUNNING||b1|");
        assert_eq!(of([loss, alive]), "8");
        assert_eq!(of([alive, loss]), "8");
        assert_eq!(of([alive, later]), "10");
        assert_eq!(of([later, alive]), "10");
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_none() {
        assert!(jobs("").unwrap().is_empty());
        for garbage in ["slurm_load_jobs error", "1|2|3", "x|N/A|RUNNING|n|b1|None", "12|N/A|RUNN"] {
            assert!(jobs(&format!("12|N/A|RUNNING|n1|b1|None\n{garbage}\n")).is_err(), "{garbage}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let never = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination";
        assert!(matches!(refusal(never), Refusal::Never(text) if text.starts_with("Batch job submission failed: Inv")));
        for maybe in [
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
            "",
        ] {
            assert!(matches!(refusal(maybe), Refusal::Uncertain(_)), "{maybe}");
        }
        let many = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates \
                    accounting/QOS policy (job submit limit, user's size and/or time limits)";
        assert!(matches!(refusal(many), Refusal::TooMany(_)));
    }

    #[test]
    fn the_accounting_is_asked_in_its_own_words_for_time() {
        let text = local("2026-11-27T01:00:00.123456789Z").unwrap();
        let digits: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(digits, "0000-00-00T00:00:00", "{text}");
        assert!(local("yesterday").is_err());
    }

    #[test]
    fn a_script_quotes_its_paths() {
        let script = script(Path::new("/a b/srpipe"), Path::new("/it's/b1.json"));
        assert_eq!(script, "#!/bin/sh\nexec '/a b/srpipe' exec --job '/it'\\''s/b1.json'\n");
    }
}
