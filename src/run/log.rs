//! Writes to the log of a stage's process, which is its stderr.

use std::io::Write;

/// Writes a line to the log. A write error, as on a full disk, does not fail the stage.
pub fn log(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
