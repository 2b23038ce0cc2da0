//! Tests against a misbehaving server on this machine.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

/// The server's reply to one request.
#[derive(Clone, Copy)]
enum Reply {
    /// The requested range.
    Good,
    /// The requested range, but the connection closes after this many bytes of the body.
    Drop(usize),
    /// The whole file, whatever range was requested.
    IgnoreRange,
    /// A different file of the same length.
    Wrong,
    Status(u16),
    /// A redirect to the same address.
    Loop,
    /// Headers and a few bytes, then silence for seconds.
    Stall,
    /// A body without a length, terminated by closing the connection.
    Unsized,
    /// Status 206 with a different range than requested.
    OtherRange,
    /// The requested range, one byte every few milliseconds.
    Trickle,
    /// The whole file, whatever range was requested, but the connection closes after this many bytes.
    DropFromStart(usize),
}

struct Server {
    address: String,
    /// The `Range` headers of all requests so far.
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    /// Sends one of `replies` per request, then repeats the last.
    fn start(content: &[u8], replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file.tar.gz", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(vec![]));
        let (content, replies, log) = (content.to_vec(), replies.to_vec(), ranges.clone());
        std::thread::spawn(move || {
            for (i, connection) in listener.incoming().enumerate() {
                let reply = replies[i.min(replies.len() - 1)];
                // The client may close the connection early.
                let _ = answer(connection.unwrap(), reply, &content, &log);
            }
        });
        Self { address, ranges }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

fn answer(mut to: TcpStream, reply: Reply, content: &[u8], log: &Mutex<Vec<Option<String>>>) -> io::Result<()> {
    let mut range = None;
    for line in BufReader::new(to.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        range = line.strip_prefix("range: ").map(str::to_string).or(range);
    }
    log.lock().unwrap().push(range.clone());
    let requested = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let start = match reply {
        Reply::IgnoreRange | Reply::DropFromStart(_) => 0,
        Reply::OtherRange => requested.map_or(0, |requested| requested + 1),
        _ => requested.unwrap_or(0),
    };
    let status = match reply {
        Reply::Status(status) => status,
        Reply::Loop => 302,
        _ if start >= content.len() => 416,
        _ if start > 0 => 206,
        _ => 200,
    };
    write!(to, "HTTP/1.1 {status} x\r\nConnection: close\r\n")?;
    if let Reply::Loop = reply {
        write!(to, "Location: /file.tar.gz\r\n")?;
    }
    if status != 200 && status != 206 {
        return write!(to, "Content-Length: 5\r\n\r\nsorry");
    }
    let mut body = content[start..].to_vec();
    if let Reply::Wrong = reply {
        body.iter_mut().for_each(|b| *b ^= 1);
    }
    if status == 206 {
        write!(to, "Content-Range: bytes {start}-{}/{}\r\n", content.len() - 1, content.len())?;
    }
    if !matches!(reply, Reply::Unsized) {
        write!(to, "Content-Length: {}\r\n", body.len())?;
    }
    write!(to, "\r\n")?;
    let sent = match reply {
        Reply::Drop(n) | Reply::DropFromStart(n) => n.min(body.len()),
        Reply::Stall => 10,
        _ => body.len(),
    };
    if let Reply::Trickle = reply {
        for byte in body {
            to.write_all(&[byte])?;
            to.flush()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        return Ok(());
    }
    to.write_all(&body[..sent])?;
    if let Reply::Stall = reply {
        to.flush()?;
        std::thread::sleep(Duration::from_secs(5));
    }
    Ok(())
}

/// A file to download, and what its download reported.
struct Case {
    folder: tempfile::TempDir,
    content: Vec<u8>,
    max_bytes: u64,
    messages: RefCell<Vec<String>>,
    progress: RefCell<Vec<(u64, Option<u64>)>>,
    /// The number of bytes at which the download is interrupted.
    stop_at: Cell<Option<u64>>,
}

impl Case {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            content: (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
            max_bytes: 400_000,
            messages: RefCell::default(),
            progress: RefCell::default(),
            stop_at: Cell::new(None),
        }
    }

    fn server(&self, replies: &[Reply]) -> Server {
        Server::start(&self.content, replies)
    }

    fn part(&self) -> std::path::PathBuf {
        self.folder.path().join("file.part")
    }

    fn download(&self, servers: &[&Server]) -> Result<(), DownloadError> {
        let addresses: Vec<SecretUrl> = servers.iter().map(|s| s.address.clone().into()).collect();
        let complete = self.folder.path().join("right");
        std::fs::write(&complete, &self.content).unwrap();
        let limits =
            Limits { timeout: Duration::from_millis(500), bytes_per_second: 1000, window: Duration::from_millis(400) };
        let retry = RetryPolicy { attempts: 3, backoff: Duration::from_millis(5), limits, max_transfer: 2 };
        let request = Request {
            addresses: &addresses,
            sha256: &file_sha256(&complete).unwrap(),
            part: &self.part(),
            max_bytes: self.max_bytes,
            retry,
        };
        let observer = Observer {
            progress: &|done, total| self.progress.borrow_mut().push((done, total)),
            message: &|text| self.messages.borrow_mut().push(text),
            interrupted: &|| {
                let received = std::fs::metadata(self.part()).map_or(0, |m| m.len());
                self.stop_at.get().is_some_and(|bytes| received >= bytes)
            },
        };
        download(&request, &observer)
    }

    fn assert_success(&self, servers: &[&Server]) {
        self.download(servers).unwrap();
        assert!(std::fs::read(self.part()).unwrap() == self.content, "the received bytes are correct");
    }

    /// Checks that the download fails, and returns the cause for each server.
    fn assert_failure(&self, servers: &[&Server]) -> Vec<String> {
        match self.download(servers) {
            Err(DownloadError::Failed(causes)) => {
                let addresses: Vec<_> = causes.iter().map(|(address, _)| address).collect();
                assert_eq!(addresses, servers.iter().map(|s| &s.address).collect::<Vec<_>>());
                causes.into_iter().map(|(_, cause)| cause).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Returns the `Range` header of a request for the bytes from `n` onwards.
fn range_from(n: usize) -> Option<String> {
    Some(format!("bytes={n}-"))
}

/// The SHA-256 of "abc" (FIPS 180-2, appendix B.1).
#[test]
fn digests_are_hexadecimal() {
    let case = Case::new();
    std::fs::write(case.part(), "abc").unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(file_sha256(&case.part()).unwrap(), expected);
}

#[test]
fn a_good_server_gets_one_request() {
    for reply in [Reply::Good, Reply::Unsized] {
        let case = Case::new();
        let server = case.server(&[reply]);
        case.assert_success(&[&server]);
        assert_eq!(server.ranges(), [None]);
        assert_eq!(case.progress.borrow().last(), Some(&(300_000, Some(300_000))));
        // A complete file is not requested again.
        case.assert_success(&[&server]);
        assert_eq!(server.ranges(), [None]);
    }
}

#[test]
fn a_dropped_connection_is_resumed_where_it_broke() {
    let case = Case::new();
    let server = case.server(&[Reply::Drop(100_000), Reply::Drop(50_000), Reply::Good]);
    case.assert_success(&[&server]);
    assert_eq!(server.ranges(), [None, range_from(100_000), range_from(150_000)]);
    assert_eq!(case.messages.borrow().len(), 2);
}

#[test]
fn the_part_file_of_an_earlier_run_is_resumed() {
    let case = Case::new();
    std::fs::write(case.part(), &case.content[..123]).unwrap();
    let server = case.server(&[Reply::Good]);
    case.assert_success(&[&server]);
    assert_eq!(server.ranges(), [range_from(123)]);
}

#[test]
fn the_download_starts_over_if_the_server_ignores_ranges() {
    let case = Case::new();
    let server = case.server(&[Reply::Drop(100_000), Reply::IgnoreRange]);
    case.assert_success(&[&server]);
    assert_eq!(server.ranges(), [None, range_from(100_000)]);
}

#[test]
fn a_wrong_range_is_refused() {
    let case = Case::new();
    std::fs::write(case.part(), &case.content[..123]).unwrap();
    let server = case.server(&[Reply::OtherRange, Reply::Good]);
    case.assert_success(&[&server]);
    assert_eq!(server.ranges(), [range_from(123), None]);
}

#[test]
fn a_wrong_part_file_is_detected_and_replaced_once() {
    // The partial file is shorter than the file, equally long, or longer (then the server has no such range).
    for len in [1000, 300_000, 350_000] {
        let case = Case::new();
        std::fs::write(case.part(), vec![7; len]).unwrap();
        let server = case.server(&[Reply::Good]);
        case.assert_success(&[&server]);
        assert_eq!(server.ranges(), [range_from(len), None]);
    }
    let case = Case::new();
    std::fs::write(case.part(), vec![7; 1000]).unwrap();
    let server = case.server(&[Reply::Wrong]);
    let causes = case.assert_failure(&[&server]);
    assert!(causes[0].contains("wrong SHA-256"), "{causes:?}");
    assert_eq!(server.ranges(), [range_from(1000), None]);
    assert!(!case.part().exists());
}

#[test]
fn mirrors_are_tried_in_order_and_every_cause_is_reported() {
    let case = Case::new();
    let gone = case.server(&[Reply::Status(404)]);
    let wrong = case.server(&[Reply::Wrong]);
    let broken = case.server(&[Reply::Status(503)]);
    let causes = case.assert_failure(&[&gone, &wrong, &broken]);
    assert_eq!(causes[0], "HTTP status 404");
    assert!(causes[1].starts_with("wrong SHA-256"), "{causes:?}");
    assert_eq!(causes[2], "HTTP status 503 (tried 3 times)");
    assert_eq!([&gone, &wrong, &broken].map(|s| s.ranges().len()), [1, 1, 3]);
    let good = case.server(&[Reply::Good]);
    case.assert_success(&[&gone, &wrong, &good]);
}

#[test]
fn a_redirect_loop_is_not_retried() {
    let case = Case::new();
    let (looping, good) = (case.server(&[Reply::Loop]), case.server(&[Reply::Good]));
    case.assert_success(&[&looping, &good]);
    let messages = case.messages.borrow();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].contains("redirect") && !messages[0].contains("retrying"), "{messages:?}");
    assert!(looping.ranges().len() <= 11, "one attempt: {}", looping.ranges().len());
}

#[test]
fn a_mirror_resumes_after_the_first_address_failed() {
    let case = Case::new();
    let first = case.server(&[Reply::Drop(90_000), Reply::Status(500)]);
    let mirror = case.server(&[Reply::Good]);
    case.assert_success(&[&first, &mirror]);
    assert_eq!(mirror.ranges(), [range_from(90_000)]);
}

#[test]
fn a_silent_server_times_out() {
    let case = Case::new();
    let silent = case.server(&[Reply::Stall]);
    let good = case.server(&[Reply::Good]);
    case.assert_success(&[&silent, &good]);
    assert_eq!(good.ranges(), [range_from(10 * silent.ranges().len())]);
}

#[test]
fn a_connection_that_is_too_slow_is_closed() {
    let case = Case::new();
    let (slow, good) = (case.server(&[Reply::Trickle]), case.server(&[Reply::Good]));
    case.assert_success(&[&slow, &good]);
    let messages = case.messages.borrow();
    assert!(messages[0].contains("too slow"), "{messages:?}");
    assert_eq!(slow.ranges().len(), 3);
}

#[test]
fn repeated_bytes_are_not_progress() {
    let mut case = Case::new();
    case.content = vec![3; 8 << 20];
    case.max_bytes = 100 << 20;
    // The partial file shrinks and grows by more than a mebibyte again and again.
    let (from_start, on) = (Reply::DropFromStart(1 << 20), Reply::Drop(3 << 20));
    let replies: Vec<Reply> = (0..100).flat_map(|_| [from_start, on]).collect();
    let server = case.server(&replies);
    let causes = case.assert_failure(&[&server]);
    assert!(causes[0].contains("(tried 3 times)"), "{causes:?}");
    assert!(server.ranges().len() < 10, "{}", server.ranges().len());
}

#[test]
fn the_total_bytes_per_address_are_bounded() {
    let mut case = Case::new();
    case.content = vec![3; 40 << 20];
    case.max_bytes = 41 << 20;
    // Each attempt starts from the beginning and gets further.
    let replies: Vec<Reply> = (1..40).map(|i| Reply::DropFromStart(i << 20)).collect();
    let server = case.server(&replies);
    let causes = case.assert_failure(&[&server]);
    assert!(causes[0].contains("never the whole file"), "{causes:?}");
    assert!(server.ranges().len() < 20, "{}", server.ranges().len());
}

#[test]
fn secrets_are_sent_and_redacted_in_messages() {
    let case = Case::new();
    let (good, gone) = (case.server(&[Reply::Good]), case.server(&[Reply::Status(503)]));
    let with_secret = |server: &Server| Server {
        address: server.address.replace("http://", "http://user:SECRET@") + "?sig=SECRET&part=1",
        ranges: server.ranges.clone(),
    };
    let Err(error) = case.download(&[&with_secret(&gone)]) else { panic!("the server has no file") };
    let messages = format!("{error} {error:?} {:?}", case.messages.borrow());
    assert!(
        messages.contains("http://***@") && messages.contains("sig=***&part=1") && !messages.contains("SECRET"),
        "{messages}"
    );
    case.assert_success(&[&with_secret(&good)]);
}

#[test]
fn a_refused_connection_is_reported() {
    let case = Case::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let causes = case.assert_failure(&[&Server { address, ranges: Arc::default() }]);
    assert!(causes[0].contains("(tried 3 times)"), "{causes:?}");
}

#[test]
fn an_interruption_keeps_the_received_data() {
    let case = Case::new();
    case.stop_at.set(Some(10));
    let silent = case.server(&[Reply::Stall]);
    let started = Instant::now();
    assert!(matches!(case.download(&[&silent]), Err(DownloadError::Interrupted)));
    assert!(started.elapsed() < Duration::from_millis(450), "the interruption does not wait for the timeout");
    case.stop_at.set(None);
    let good = case.server(&[Reply::Good]);
    case.assert_success(&[&good]);
    assert_eq!(good.ranges(), [range_from(10)]);
}

#[test]
fn files_that_are_too_large_are_refused() {
    for reply in [Reply::Good, Reply::Unsized] {
        let mut case = Case::new();
        case.content = vec![1; 500_000];
        let server = case.server(&[reply]);
        let causes = case.assert_failure(&[&server]);
        assert!(causes[0].contains("more than the maximum of 400000 bytes"), "{causes:?}");
        assert!(std::fs::metadata(case.part()).map_or(0, |m| m.len()) <= 400_000);
    }
}
