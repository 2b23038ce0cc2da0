//! Verifies everything under `runs/`.

use anyhow::Result;

use crate::store::{Action, Store, Verified};

/// Verifies the store, like [`Store::verify`], and the record and pipeline of every run.
pub fn verify(store: &Store, check: impl Fn(&Action) -> Result<(), String>) -> Result<Verified> {
    // Garbage collection must not remove what is about to be read.
    let _guard = store.guard()?;
    let mut verified = store.verify(check)?;
    for run in store.pipelines().iter().flat_map(|pipeline| store.runs(pipeline)) {
        let errors = [run.record().err(), run.resolved().err()];
        verified.damaged_runs.extend(errors.into_iter().flatten().map(|error| format!("{error:#}")));
    }
    Ok(verified)
}
