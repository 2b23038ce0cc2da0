//! The interface to batch systems. Everything that depends on a particular one is behind the trait [`BatchSystem`].

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::plan::PlannedStage;
use crate::run::status::Cause;

/// A batch system such as Slurm: it queues jobs and runs them on machines that share a file system.
///
/// Every method may be called from several threads. Methods that contact the system may fail or take as long as the
/// system's timeout.
pub trait BatchSystem: Send + Sync {
    /// Returns the name for messages.
    fn name(&self) -> &'static str;

    /// Returns how long it may take until this machine sees what another one wrote to the shared file system.
    fn grace(&self) -> Duration;

    /// Checks that jobs can be submitted from this machine. The error contains a remedy.
    fn check_available(&self) -> Result<(), String>;

    /// Whether a stage requests a GPU.
    fn requests_gpu(&self, stage: &PlannedStage) -> bool;

    /// Returns the submission options for a stage's resources. Stages with equal options may become one array. With
    /// `cuda`, stages that run a network need a GPU.
    fn options(&self, stage: &PlannedStage, cuda: bool) -> Vec<String>;

    /// Submits a job or an array of jobs and returns its number.
    fn submit(&self, submission: &Submission) -> Result<u64, Refusal>;

    /// Returns the jobs of a run in the queue, in any state.
    fn queue(&self, run_id: &str) -> Result<Jobs>;

    /// Returns the states of a run's jobs by their ids, from the accounting; None if the cluster has no accounting.
    /// `since` is when the run began, in RFC 3339.
    fn accounting(&self, run_id: &str, since: &str) -> Result<Option<BTreeMap<String, JobState>>>;

    /// Cancels all jobs of a run.
    fn cancel(&self, run_id: &str) -> Result<()>;

    /// Lets a requeued job start as soon as resources are free.
    fn start_now(&self, job: &str) -> Result<()>;

    /// Returns the job that this process runs in.
    fn current_job(&self) -> CurrentJob;

    /// Requeues a running job.
    fn requeue(&self, job: &str) -> Result<()>;

    /// Whether a job may continue to run: false once it was cancelled or its time is up.
    fn is_running(&self, job: &str) -> bool;

    /// Returns how a job ended, according to the system's messages in the job's stderr.
    fn end_in_log(&self, stderr: &str) -> Option<End>;
}

/// Identifies a job of a run: the number of its batch, and its index in that batch.
pub(super) type TaskId = (usize, usize);

/// The jobs of one run in the queue.
pub type Jobs = BTreeMap<TaskId, QueuedJob>;

/// A job as the queue shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedJob {
    /// The id in the form that the system's commands accept, for example `12_3` for task 3 of array 12.
    pub id: String,
    pub state: JobState,
}

impl QueuedJob {
    /// Returns the number that all tasks of an array share.
    pub(super) fn number(&self) -> Option<u64> {
        self.id.split('_').next()?.parse().ok()
    }
}

/// A job or an array of jobs to submit.
pub struct Submission<'a> {
    /// The name of the job: by this name, [`BatchSystem::queue`] and [`BatchSystem::cancel`] find the jobs of a run.
    pub run_id: &'a str,
    /// Begins with the tag of the batch, by which [`BatchSystem::queue`] finds its number.
    pub comment: String,
    /// From [`BatchSystem::options`].
    pub options: Vec<String>,
    /// The number of tasks; more than one is an array.
    pub tasks: usize,
    /// Jobs that must succeed first.
    pub after: &'a [Dependency],
    /// Task N writes its stdout to `bB_N.out` in this folder and its stderr to `bB_N.err`, where `bB` is the tag.
    pub folder: &'a Path,
    pub tag: String,
    /// The srpipe binary, which the job runs as `srpipe exec --job RECORD`.
    pub exe: &'a Path,
    pub record: &'a Path,
    /// The value of the environment variable `SRPIPE_SECRET_URLS`, if the run has secrets.
    pub secrets: Option<&'a str>,
}

/// A job that must succeed before another one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    pub job: u64,
    /// Task N of an array depends only on task N of the other array.
    pub by_task: bool,
}

/// Why a submission failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The system rejects this job, however often it is submitted.
    Permanent(String),
    /// The user has too many jobs.
    TooManyJobs(String),
    /// The job may have been submitted; the queue shows whether it was.
    Uncertain(String),
}

/// The job that a process runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CurrentJob {
    /// The id in the form that [`BatchSystem::requeue`] accepts.
    pub id: String,
    /// The index in an array; None outside an array.
    pub task: Option<usize>,
    /// How often the job was started before.
    pub restarts: usize,
    /// The number of cores allocated to the job, if the system reports it.
    pub cores: Option<usize>,
}

/// The state of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// The job waits in the queue, with the reason as the system reports it.
    Queued {
        reason: String,
        /// The system starts it only after a delay, as after a requeue.
        is_delayed: bool,
    },
    /// The job is starting, running or ending on a node.
    Running {
        node: String,
    },
    Ended(End),
    /// The system reports a state that srpipe does not know.
    Unknown,
}

/// How a job ended, according to the batch system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Completed,
    Failed,
    OutOfMemory,
    TimeLimit,
    NodeFailure,
    Preempted,
    Cancelled,
    /// A job that it depends on failed.
    NeverStarted,
}

impl End {
    pub fn cause(self) -> Cause {
        match self {
            Self::OutOfMemory => Cause::OutOfMemory,
            Self::TimeLimit => Cause::Time,
            Self::NodeFailure => Cause::NodeFailure,
            Self::Preempted => Cause::Preempted,
            Self::Cancelled | Self::NeverStarted => Cause::Cancelled,
            Self::Completed | Self::Failed => Cause::Failed,
        }
    }

    /// Describes the end, to follow "job N".
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::OutOfMemory => "exceeded its memory limit (`resources.memory`) and was killed",
            Self::TimeLimit => "exceeded its time limit (`resources.time`) and was killed",
            Self::NodeFailure => "was lost because its node failed",
            Self::Preempted => "was preempted by another job",
            Self::Cancelled => "was cancelled",
            Self::NeverStarted => "was removed because a job that it depends on failed",
            Self::Completed => "ended without a result",
            Self::Failed => "failed without an error message",
        }
    }
}

/// Returns the tag of a batch, which distinguishes its jobs from others of the run.
pub(super) fn tag(batch: usize) -> String {
    format!("b{batch}")
}
