//! Adds runs from other stores, whose records are checked before anything is written.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use super::{RunDir, RunRecord, RunState, StageRecord, StageRunState, is_run_id};
use crate::config::names::{is_reserved_pipeline, is_reserved_stage};
use crate::store::{Store, files};

impl Store {
    /// Adds a run from another store, atomically, as a finished run with links to its available results. None if a run
    /// with this id exists.
    pub(super) fn import_run(&self, record: &RunRecord, resolved_yaml: &[u8]) -> Result<Option<RunDir>> {
        check_run(record)?;
        if let Some(run) = self.runs(&record.pipeline).into_iter().find(|run| run.id() == record.id) {
            // An import that was killed may have added it without the link.
            run.make_latest_if_missing()?;
            return Ok(None);
        }
        let record = mark_ended(record);
        let mut outputs = vec![];
        for stage in &record.stages {
            let has_result = matches!(stage.state, StageRunState::Ran | StageRunState::Cached);
            if let (true, Some(key)) = (has_result, &stage.key)
                && let Some(action) = self.action(key)?
            {
                outputs.push((stage.name.as_str(), action.outputs));
            }
        }
        self.add_run(&record, resolved_yaml, &outputs).map(Some)
    }
}

/// The maximum number of command-line arguments, about what Linux accepts.
const MAX_ARGUMENTS: usize = 100_000;
/// The maximum length of a file name.
const MAX_NAME_BYTES: usize = 255;

/// Checks all names in a foreign run's record from which paths are derived, before anything is written.
pub fn check_run(record: &RunRecord) -> Result<()> {
    let check = |what: &str, name: &str, is_reserved: bool| {
        files::check_name(what, name)?;
        ensure!(!name.chars().any(char::is_control), "{what} {name:?} contains control characters");
        let start: String = name.chars().take(20).collect();
        ensure!(name.len() <= MAX_NAME_BYTES, "{what} \"{start}…\" is longer than {MAX_NAME_BYTES} bytes");
        ensure!(!is_reserved, "{what} {name:?} is reserved: srpipe uses it for a file or folder of its own");
        Ok(())
    };
    ensure!(is_run_id(&record.id), "{:?} is not a valid run id", record.id);
    check("the pipeline's name", &record.pipeline, is_reserved_pipeline(&record.pipeline))?;
    // An empty argument takes many times more space in memory than in the file.
    let arguments = record.command.len();
    ensure!(
        arguments <= MAX_ARGUMENTS,
        "the command line of the run has {arguments} arguments, more than {MAX_ARGUMENTS}"
    );
    let mut names = HashSet::new();
    for StageRecord { name, .. } in &record.stages {
        check("the stage's name", name, is_reserved_stage(name))?;
        ensure!(names.insert(name), "two stages have the name {name:?}");
    }
    Ok(())
}

/// Returns the record with a final state: no process here runs it, and its jobs belong to another cluster.
fn mark_ended(record: &RunRecord) -> RunRecord {
    let mut record = record.clone();
    if record.state == RunState::Running {
        record.state = RunState::Interrupted;
    }
    for stage in &mut record.stages {
        stage.job = None;
        stage.state = match stage.state {
            StageRunState::Running => StageRunState::Interrupted,
            StageRunState::Pending => StageRunState::Skipped,
            state => state,
        };
    }
    record
}
