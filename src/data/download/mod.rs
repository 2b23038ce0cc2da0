//! Downloads a file with a known SHA-256 over unreliable connections: resumes, retries, falls back to further
//! addresses, and verifies.
//!
//! Received data is stored in a `.part` file that survives the process; the next attempt, from any address, requests
//! the rest. Only the digest of the complete file confirms it.
//!
//! A download always terminates, whatever the servers do: every connection is subject to timeouts and a minimum rate
//! (see [`Limits`]), and both the attempts without progress and the total bytes per address are limited.

mod connection;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::config::SecretUrl;
use crate::io::http::Limits;
use connection::{Message, start_request};

/// A download: the source, the destination and the limits.
pub struct Request<'a> {
    /// `http:` or `https:` addresses of the same file, in the order in which they are tried.
    pub addresses: &'a [SecretUrl],
    /// The expected digest in hexadecimal, in either case.
    pub sha256: &'a str,
    /// The `.part` file; the complete file after a successful download.
    pub part: &'a Path,
    /// The maximum size of the file.
    pub max_bytes: u64,
    pub retry: RetryPolicy,
}

/// When to retry, and when to give up.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// The number of consecutive attempts without progress before the next address is tried. Progress means at least a
    /// mebibyte more than ever before; a server that sends the same bytes again makes none.
    attempts: u32,
    /// The delay before the second attempt; it doubles with each further attempt.
    backoff: Duration,
    /// The limits at which a connection is closed.
    limits: Limits,
    /// The bytes that one address may send over all attempts, as a multiple of [`Request::max_bytes`].
    max_transfer: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, backoff: Duration::from_secs(1), limits: Limits::default(), max_transfer: 2 }
    }
}

/// The callbacks of a download.
pub struct Observer<'a> {
    /// Called with the number of bytes received so far and, if known, the total.
    pub progress: &'a dyn Fn(u64, Option<u64>),
    /// Called with messages for the user.
    pub message: &'a dyn Fn(String),
    /// Whether to stop; called several times per second.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// The reason why a download failed.
#[derive(Debug)]
pub enum DownloadError {
    /// [`Observer::interrupted`] returned true. The received data is kept.
    Interrupted,
    /// No address delivered the file. Lists each redacted address with its cause.
    Failed(Vec<(String, String)>),
    /// The `.part` file cannot be written or read.
    Local(anyhow::Error),
}

impl std::fmt::Display for DownloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interrupted => f.write_str("the download was interrupted; the received data is kept"),
            Self::Failed(causes) => {
                f.write_str("the download failed:")?;
                causes.iter().try_for_each(|(address, cause)| write!(f, "\n  {address}: {cause}"))
            }
            Self::Local(e) => write!(f, "{e:#}"),
        }
    }
}

impl std::error::Error for DownloadError {}

impl From<anyhow::Error> for DownloadError {
    fn from(e: anyhow::Error) -> Self {
        Self::Local(e)
    }
}

/// The outcome of one attempt.
enum Attempt {
    /// The server sent the rest of the file.
    Complete {
        /// Whether the first bytes are from an earlier attempt.
        resumed: bool,
    },
    /// A temporary failure.
    Broken(String),
    /// A permanent failure of this address.
    Refused(String),
    /// The received data does not match the server's file; discard it and start over.
    StartOver,
}

/// Downloads to [`Request::part`] and verifies the digest.
pub fn download(request: &Request, observer: &Observer) -> Result<(), DownloadError> {
    // An earlier run may have been stopped after it received the last byte.
    if part_len(request.part)? > 0 && file_sha256(request.part)?.eq_ignore_ascii_case(request.sha256) {
        return Ok(());
    }
    let mut causes = vec![];
    for address in request.addresses {
        match download_from(address, request, observer)? {
            Ok(()) => return Ok(()),
            Err(cause) => {
                (observer.message)(format!("{address}: {cause}"));
                causes.push((address.to_string(), cause));
            }
        }
    }
    Err(DownloadError::Failed(causes))
}

/// The minimum number of new bytes that count as progress.
const MIN_PROGRESS_BYTES: u64 = 1 << 20;

/// Tries to download from one address until its attempts are used up. The inner error is the reason for the failure.
fn download_from(
    address: &SecretUrl,
    request: &Request,
    observer: &Observer,
) -> Result<Result<(), String>, DownloadError> {
    let RetryPolicy { attempts, backoff, max_transfer, .. } = request.retry;
    let mut may_restart = true;
    let mut failures = 0;
    let mut best = part_len(request.part)?;
    let mut received = 0;
    loop {
        let before = part_len(request.part)?;
        let attempt = attempt(address, before, request, &mut received, observer)?;
        if !matches!(attempt, Attempt::Complete { .. }) && received > request.max_bytes.saturating_mul(max_transfer) {
            return Ok(Err(format!(
                "the server sent {received} bytes over several attempts, but never the whole file"
            )));
        }
        match attempt {
            Attempt::Complete { resumed } => {
                let digest = file_sha256(request.part)?;
                if digest.eq_ignore_ascii_case(request.sha256) {
                    return Ok(Ok(()));
                }
                remove_part(request.part)?;
                if !(resumed && may_restart) {
                    return Ok(Err(format!("wrong SHA-256: expected {}, found {digest}", request.sha256)));
                }
                may_restart = false;
                (observer.message)(format!("{address}: the resumed download has the wrong SHA-256; starting over"));
            }
            Attempt::StartOver => {
                remove_part(request.part)?;
                if !std::mem::take(&mut may_restart) {
                    return Ok(Err(
                        "the server does not support resuming: it sent a different range than requested".to_string()
                    ));
                }
            }
            Attempt::Refused(cause) => return Ok(Err(cause)),
            Attempt::Broken(cause) => {
                let len = part_len(request.part)?;
                let is_progress = len >= best + MIN_PROGRESS_BYTES;
                failures = if is_progress { 1 } else { failures + 1 };
                best = if is_progress { len } else { best };
                if failures >= attempts {
                    return Ok(Err(format!("{cause} (tried {failures} times)")));
                }
                let wait = backoff * 2u32.pow((failures - 1).min(6));
                (observer.message)(format!("{address}: {cause}; retrying in {:.0} s", wait.as_secs_f64()));
                sleep(wait, observer)?;
            }
        }
    }
}

/// Requests the bytes from `offset` onwards and appends them to the file.
fn attempt(
    address: &SecretUrl,
    offset: u64,
    request: &Request,
    received: &mut u64,
    observer: &Observer,
) -> Result<Attempt, DownloadError> {
    let messages = start_request(address.clone(), offset, request.retry.limits);
    let head = match next_message(&messages, observer)? {
        Some(Message::Head(head)) => head,
        Some(Message::Broken(cause)) => return Ok(Attempt::Broken(cause)),
        Some(Message::Refused(cause)) => return Ok(Attempt::Refused(cause)),
        Some(Message::Bytes(_) | Message::End) | None => {
            return Ok(Attempt::Broken("the connection was lost".to_string()));
        }
    };
    let start = match (head.status, head.range_start) {
        (200, _) => 0,
        (206, Some(start)) if start == offset => offset,
        // 416: the range is past the end, so the `.part` file is either complete or wrong.
        (416, _) if offset > 0 => return Ok(Attempt::Complete { resumed: true }),
        (206 | 416, _) => return Ok(Attempt::StartOver),
        (status @ (408 | 425 | 429 | 500..), _) => return Ok(Attempt::Broken(format!("HTTP status {status}"))),
        (status, _) => return Ok(Attempt::Refused(format!("HTTP status {status}"))),
    };
    let total = head.length.map(|length| start.saturating_add(length));
    let too_large = format!("the file has more than the maximum of {} bytes", request.max_bytes);
    if total.is_some_and(|total| total > request.max_bytes) {
        return Ok(Attempt::Refused(too_large));
    }
    let writing = || format!("writing {}", request.part.display());
    let mut file = OpenOptions::new().create(true).append(true).open(request.part).with_context(writing)?;
    file.set_len(start).with_context(writing)?;
    let mut done = start;
    let mut reported = Instant::now();
    (observer.progress)(done, total);
    loop {
        match next_message(&messages, observer)? {
            Some(Message::Bytes(bytes)) => {
                done += bytes.len() as u64;
                *received += bytes.len() as u64;
                if done > request.max_bytes {
                    remove_part(request.part)?;
                    return Ok(Attempt::Refused(too_large));
                }
                file.write_all(&bytes).with_context(writing)?;
                if reported.elapsed() >= Duration::from_millis(200) {
                    reported = Instant::now();
                    (observer.progress)(done, total);
                }
            }
            Some(Message::End) if total.is_none_or(|total| total == done) => {
                (observer.progress)(done, Some(done));
                file.sync_all().with_context(writing)?;
                return Ok(Attempt::Complete { resumed: start > 0 });
            }
            Some(Message::Broken(cause)) => return Ok(Attempt::Broken(cause)),
            _ => return Ok(Attempt::Broken(format!("the connection was lost after {done} bytes"))),
        }
    }
}

/// Returns the next message; `None` if the connection's thread has ended.
fn next_message(messages: &Receiver<Message>, observer: &Observer) -> Result<Option<Message>, DownloadError> {
    loop {
        if (observer.interrupted)() {
            return Err(DownloadError::Interrupted);
        }
        match messages.recv_timeout(Duration::from_millis(100)) {
            Ok(message) => return Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Sleeps for `duration`, unless interrupted.
fn sleep(duration: Duration, observer: &Observer) -> Result<(), DownloadError> {
    let end = Instant::now() + duration;
    loop {
        if (observer.interrupted)() {
            return Err(DownloadError::Interrupted);
        }
        let remaining = end.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Ok(());
        }
        std::thread::sleep(remaining.min(Duration::from_millis(50)));
    }
}

/// Returns the length of the `.part` file, or 0 if there is none.
fn part_len(part: &Path) -> anyhow::Result<u64> {
    match std::fs::metadata(part) {
        Ok(metadata) => Ok(metadata.len()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e).with_context(|| format!("reading the size of {}", part.display())),
    }
}

fn remove_part(part: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("removing {}", part.display())),
        _ => Ok(()),
    }
}

/// Returns the SHA-256 of a file in lower-case hexadecimal.
pub fn file_sha256(path: &Path) -> anyhow::Result<String> {
    let digest = File::open(path).and_then(|mut file| sha256_of(&mut file));
    digest.with_context(|| format!("reading {} to verify its SHA-256", path.display()))
}

/// Returns the SHA-256 of the reader's remaining data in lower-case hexadecimal.
pub fn sha256_of(reader: &mut impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
