//! Runs an HTTP request on a separate thread and passes the response on as messages.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::config::{SecretUrl, redact};
use crate::io::http::Limits;

/// The maximum number of redirects, as in most HTTP clients.
const MAX_REDIRECTS: u32 = 10;

/// A message from a connection's thread.
pub(super) enum Message {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    /// A temporary failure.
    Broken(String),
    /// A permanent failure.
    Refused(String),
}

/// The status and headers of a response.
pub(super) struct Head {
    pub(super) status: u16,
    /// The length of the body.
    pub(super) length: Option<u64>,
    /// The first byte of the range that the server sends, if it sends a range.
    pub(super) range_start: Option<u64>,
}

/// Starts a request for the bytes from `offset` onwards, on a separate thread, so that an interruption need not wait
/// for a silent server. The thread ends when the receiver is dropped, at the latest at its next timeout.
pub(super) fn start_request(address: SecretUrl, offset: u64, limits: Limits) -> Receiver<Message> {
    let (sender, messages) = sync_channel(16);
    std::thread::spawn(move || {
        // Errors of `send` are ignored: the receiver has been dropped.
        if let Err(message) = run_request(&address, offset, limits, |message| sender.send(message).is_ok()) {
            let _ = sender.send(message);
        }
    });
    messages
}

fn run_request(
    address: &SecretUrl,
    offset: u64,
    limits: Limits,
    send: impl Fn(Message) -> bool,
) -> Result<(), Message> {
    let agent = limits.agent(MAX_REDIRECTS);
    let mut get = agent.get(address.expose());
    if offset > 0 {
        get = get.header("Range", format!("bytes={offset}-"));
    }
    let response = get.call().map_err(|e| {
        // The error may contain the address.
        let text = redact(&e.to_string()).into_owned();
        match e {
            // A retry would get the same answer.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => Message::Refused(text),
            _ => Message::Broken(text),
        }
    })?;
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    let range_start = header("Content-Range").and_then(|v| v.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    let head = Head { status: response.status().as_u16(), length: response.body().content_length(), range_start };
    if !send(Message::Head(head)) {
        return Ok(());
    }
    let mut body = limits.body(response.into_body().into_reader());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let message = match body.read(&mut buffer) {
            Ok(0) => Message::End,
            Ok(n) => Message::Bytes(buffer[..n].to_vec()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Message::Broken(e.to_string())),
        };
        let last = matches!(message, Message::End);
        if !send(message) || last {
            return Ok(());
        }
    }
}
