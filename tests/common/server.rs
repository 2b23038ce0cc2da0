//! A web server with one file. It can stall its clients, so that a `fetch` stage runs for as long as a test needs.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    content: Vec<u8>,
    requests: AtomicUsize,
    open: Mutex<bool>,
    opened: Condvar,
    ended: AtomicBool,
}

impl Server {
    /// Creates a server that sends the first half of the content, and the rest after [`Server::open`].
    pub fn stalled(content: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/archive.tar.gz", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            content,
            requests: AtomicUsize::new(0),
            open: Mutex::new(false),
            opened: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let server = Self { url, shared: shared.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.ended.load(SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || shared.answer(stream));
            }
        });
        server
    }

    /// Lets all requests finish.
    pub fn open(&self) {
        *self.shared.open.lock().unwrap() = true;
        self.shared.opened.notify_all();
    }

    /// Returns the number of requests so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(SeqCst)
    }

    /// Returns the YAML of a `fetch` stage that downloads the content.
    pub fn fetch(&self) -> String {
        let digest = super::sha256(&self.shared.content);
        format!("{{kind: fetch, dataset: cifar10, url: '{}', sha256: {digest}, validation: 2}}", self.url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.open();
        let address = self.url.trim_start_matches("http://").split('/').next().unwrap().to_string();
        let _ = TcpStream::connect(address);
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let mut from = 0;
        let mut has_request = false;
        for line in &mut lines {
            has_request = true;
            let line = line.to_lowercase();
            if let Some(range) = line.strip_prefix("range: bytes=") {
                from = range.split('-').next().and_then(|from| from.parse().ok()).unwrap_or(0);
            }
        }
        if !has_request {
            return;
        }
        self.requests.fetch_add(1, SeqCst);
        let total = self.content.len();
        let status = if from > 0 {
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}", total - 1)
        } else {
            "200 OK".to_string()
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", total - from);
        let half = (total / 2).max(from);
        let mut out = &stream;
        // Write errors are ignored, because the client may have been killed.
        let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(&self.content[from..half]));
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        let _ = out.write_all(&self.content[half..]);
    }
}
