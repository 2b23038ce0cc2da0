//! Writes to the log of a stage's process, which is its stderr.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::store::open_log;

/// Writes a line to the log. A write error, as on a full disk, does not fail the stage.
pub(super) fn log(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Redirects this process's stderr to the end of a file.
pub(super) fn redirect_stderr(path: &Path) -> Result<()> {
    let file = open_log(path)?;
    rustix::stdio::dup2_stderr(&file).with_context(|| format!("writing stderr to {}", path.display()))
}
