//! The log of a stage's process: its stderr.

use std::io::Write;

/// Writes a line to the log. A log that cannot be written, as on a full disk, is no reason to end a stage.
pub fn log(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
