//! Records of runs. Each run has a folder that users may inspect and delete.
//!
//! ```text
//! runs/
//!   <pipeline>/<run-id>/             run.json, pipeline.yaml (resolved), one folder per stage with links to outputs
//!   <pipeline>/<run-id>/.lock        locked while a process works on the run
//!   <pipeline>/<run-id>/.pinned      exists if the run is pinned, so that `gc` keeps it
//!   <pipeline>/<run-id>/.slurm/      records and output of the run's jobs, if a batch system runs its stages
//!   <pipeline>/latest                link to the newest run
//! ```
//!
//! - `folders`: creates and lists the folders of runs. `run_dir`: one such folder. `run_id`: their names.
//! - `job_files`: the files of jobs. `damage`: recognises runs whose files are damaged.
//! - `record`: the contents of `run.json`. `study_look`: its part about earlier comparisons. `view`: the state of a run
//!   as an observer sees it.
//! - `retention`: which runs `gc` keeps. `verification`: checks every record.
//! - [`archive`]: exports runs to files. `import`: adds runs from other stores. `remote`: shared caches of results.

pub mod archive;

mod damage;
mod folders;
mod import;
mod job_files;
mod record;
mod remote;
mod retention;
mod run_dir;
mod run_id;
mod study_look;
#[cfg(test)]
mod testing;
mod verification;
mod view;

pub use import::check_run;
pub use job_files::RUN_SPEC;
pub use record::{Gone, HostInfo, JobRecord, RunRecord, RunState, StageRecord, StageRunState};
pub use remote::{Pushed, Remote, Unavailable};
pub use retention::{Removed, Retention, collect_garbage};
pub use run_dir::RunDir;
pub use run_id::is_run_id;
pub use study_look::{ArmData, ClaimLook, DataSet, StudyLook};
pub use verification::verify;
pub use view::{RunView, ViewState};
