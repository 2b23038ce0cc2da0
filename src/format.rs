//! Formats durations, ages, sizes and other values for display.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;

/// Formats a duration: `3.2 s`, `12 s`, `4:05 min`, `2:10 h`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{:.1} s", seconds.max(0.0)),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3600, whole / 60 % 60),
    }
}

/// Formats an estimated duration: `12 s`, `41 min`, `2.5 h`.
pub fn estimate(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 9.5 => format!("{s:.1} s"),
        s if s < 59.5 => format!("{s:.0} s"),
        s if s < 3570.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Formats the age of an RFC 3339 time: `now`, `5 min ago`, `3 days ago`; empty if the time is invalid.
pub fn age(then: &str, now: Timestamp) -> String {
    let Ok(then) = then.parse::<Timestamp>() else { return String::new() };
    let seconds = now.as_second() - then.as_second();
    let ago = |n: i64, unit: &str| format!("{n} {unit} ago");
    match seconds {
        ..5 => "now".into(),
        5..60 => ago(seconds, "s"),
        60..3600 => ago(seconds / 60, "min"),
        3600..86_400 => ago(seconds / 3600, "h"),
        86_400..172_800 => "yesterday".into(),
        _ => ago(seconds / 86_400, "days"),
    }
}

/// Truncates text to at most `max` characters; truncated text ends in an ellipsis.
pub fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_string(),
        Some(_) => text.chars().take(max - 1).chain(['…']).collect(),
    }
}

/// Returns the last lines of a text, at most `max` of them, ignoring trailing blank lines.
pub fn last_lines(text: &str, max: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(max)..].to_vec()
}

/// Formats a count with its noun: `1 stage`, `2 stages`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Formats a size: `12 B`, `4.2 kB`, `1.3 GB`.
pub fn size(bytes: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(unit, _)| bytes as f64 >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit),
        None => format!("{bytes} B"),
    }
}

/// Formats progress: `300/1500 steps`, `17/170 MB`; a `total` of 0 means unknown.
pub fn progress(done: u64, total: u64, unit: &str) -> String {
    let (scale, unit) = match unit {
        "bytes" if done.max(total) >= 10_000_000 => (1_000_000, "MB"),
        "bytes" if done.max(total) >= 10_000 => (1000, "kB"),
        _ => (1, unit),
    };
    let done = done / scale;
    if total == 0 { format!("{done} {unit}") } else { format!("{done}/{} {unit}", total / scale) }
}

/// Formats a number with about three significant digits: `0.1234`, `1.23`, `45.6`, `789`, `1.20e6`.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && !(1e-3..1e5).contains(&size) => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Returns a path as text for messages and JSON; bytes that are not UTF-8 are replaced.
pub fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Quotes a word for a POSIX shell if it needs quoting.
pub fn shell_word(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_string(),
        Some(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => {
            // ANSI-C quoting, which Bash, Zsh and POSIX 2024 support.
            let escaped = word.as_bytes().iter().map(|&byte| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(byte)),
                b' '..=b'~' => char::from(byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            });
            format!("$'{}'", escaped.collect::<String>())
        }
    }
}

/// Formats a difference with its sign, which zero does not have.
pub fn signed(value: f64, decimals: usize) -> String {
    let text = format!("{value:+.decimals$}");
    let is_zero = text.chars().all(|c| !c.is_ascii_digit() || c == '0') && value.is_finite();
    if is_zero { text.trim_start_matches(['+', '-']).to_string() } else { text }
}

/// Describes why a file cannot be read, for a message that already names the file.
pub fn io_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_string(),
        _ => error.to_string(),
    }
}

/// Formats a command line so that a shell can run it.
pub fn command_line(command: &[String]) -> String {
    let program = command.first().map_or("srpipe", |path| path.rsplit('/').next().unwrap_or(path));
    let words = std::iter::once(program).chain(command.iter().skip(1).map(String::as_str));
    words.map(shell_word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_no_sign() {
        for (value, text) in [(0.25, "+0.25"), (-0.25, "-0.25"), (-0.004, "0.00"), (0.004, "0.00"), (-10.0, "-10.00")] {
            assert_eq!(signed(value, 2), text);
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, quoted) in [
            ("p.yaml", "p.yaml"),
            ("new study", "'new study'"),
            ("", "''"),
            ("it's", "'it'\\''s'"),
            ("a\nb", "$'a\\x0ab'"),
            ("$HOME #1", "'$HOME #1'"),
            ("ü", "'ü'"),
        ] {
            assert_eq!(shell_word(word), quoted);
        }
        assert_eq!(shell_word(OsStr::from_bytes(b"p\xff'.yaml")), "$'p\\xff\\'.yaml'");
    }

    #[test]
    fn durations_carry_into_the_next_unit() {
        let formatted = [0.04, 9.96, 59.4, 59.6, 245.0, 3599.6, 7800.0].map(duration);
        assert_eq!(formatted, ["0.0 s", "10 s", "59 s", "1:00 min", "4:05 min", "1:00 h", "2:10 h"]);
    }

    #[test]
    fn estimates_are_rounded() {
        assert_eq!([0.04, 30.4, 59.6, 2460.0, 9000.0].map(estimate), ["0.0 s", "30 s", "1 min", "41 min", "2.5 h"]);
    }

    #[test]
    fn progress_in_bytes_is_scaled_to_larger_units() {
        assert_eq!(progress(300, 1500, "steps"), "300/1500 steps");
        assert_eq!(progress(17_500_000, 170_052_171, "bytes"), "17/170 MB");
        assert_eq!(progress(12_345, 0, "bytes"), "12 kB");
    }

    #[test]
    fn ages_are_rounded_down() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let formatted =
            ["2026-11-23T11:59:58Z", "2026-11-23T11:59:00Z", "2026-11-22T11:00:00Z", "2026-11-01T12:00:00Z", "?"]
                .map(|then| age(then, now));
        assert_eq!(formatted, ["now", "1 min ago", "yesterday", "22 days ago", ""]);
    }
}
