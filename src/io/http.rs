//! HTTP agents and limits: one policy for timeouts and transfer rates of downloads and shared caches.
//!
//! No request waits forever. Connecting, receiving the response's headers, and every single read or write have a
//! timeout. A connection whose rate falls below [`Limits::bytes_per_second`] is closed too.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::config::redact;

/// The limits at which a connection is closed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The timeout of name resolution, of connecting, of the response's headers, and of each read and write.
    pub timeout: Duration,
    /// The minimum transfer rate of a body, averaged over [`window`](Self::window).
    pub bytes_per_second: u64,
    /// The interval over which the transfer rate is averaged.
    pub window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), bytes_per_second: 1024, window: Duration::from_secs(60) }
    }
}

impl Limits {
    /// Returns an agent that reports status codes as responses, and follows at most `redirects` redirects.
    pub fn agent(&self, redirects: u32) -> ureq::Agent {
        let timeout = Some(self.timeout);
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(redirects)
            // With `redirects` 0, a redirect is returned as a response.
            .max_redirects_will_error(redirects > 0)
            .user_agent(concat!("srpipe/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_send_request(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .build()
            .new_agent()
    }

    /// Wraps the body of a request to enforce these limits.
    pub fn upload<R: Read>(&self, inner: R) -> Upload<R> {
        Upload { inner, limits: *self, handed_over: None, spent: Duration::ZERO, sent: 0 }
    }

    /// Fails if `bytes` in the time `spent` are below the minimum rate.
    fn check_rate(&self, bytes: u64, spent: Duration) -> io::Result<()> {
        let seconds = spent.as_secs_f64();
        if bytes as f64 >= self.bytes_per_second as f64 * seconds {
            return Ok(());
        }
        let text = format!(
            "the connection is too slow: {bytes} bytes in {seconds:.0} s; the minimum is {} bytes per second",
            self.bytes_per_second
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, BodyError(text)))
    }

    /// Wraps the body of a response to enforce these limits. Its errors contain [`BodyError`]s.
    pub fn body<R: Read>(&self, inner: R) -> Body<R> {
        Body { inner, limits: *self, spent: Duration::ZERO, received: 0 }
    }
}

/// The reason why a body cannot be read to its end. The [`io::Error`]s of a [`Body`] contain it, which distinguishes
/// them from disk errors.
#[derive(Debug)]
pub struct BodyError(String);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BodyError {}

/// The body of a response; fails if it arrives too slowly.
pub struct Body<R> {
    inner: R,
    limits: Limits,
    /// Time spent waiting for bytes in the current window, excluding the caller's own time.
    spent: Duration,
    /// Bytes received in the current window.
    received: u64,
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let n = match self.inner.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Err(e) => return Err(io::Error::new(e.kind(), BodyError(redact(&e.to_string()).into_owned()))),
            Ok(n) => n,
        };
        self.spent += start.elapsed();
        self.received += n as u64;
        if n > 0 && self.spent >= self.limits.window {
            self.limits.check_rate(self.received, self.spent)?;
            (self.spent, self.received) = (Duration::ZERO, 0);
        }
        Ok(n)
    }
}

/// The body of a request; fails if it is sent too slowly.
pub struct Upload<R> {
    inner: R,
    limits: Limits,
    /// The time at which the last bytes were handed to the sender.
    handed_over: Option<Instant>,
    /// Time spent sending in the current window.
    spent: Duration,
    /// Bytes sent in the current window.
    sent: u64,
}

impl<R: Read> Read for Upload<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.spent += self.handed_over.map_or(Duration::ZERO, |at| at.elapsed());
        if self.spent >= self.limits.window {
            self.limits.check_rate(self.sent, self.spent)?;
            (self.spent, self.sent) = (Duration::ZERO, 0);
        }
        let n = self.inner.read(buffer)?;
        self.sent += n as u64;
        self.handed_over = Some(Instant::now());
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `chunk` bytes per read, `pause` after the previous read.
    struct Trickle {
        chunk: usize,
        pause: Duration,
    }

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.pause);
            Ok(self.chunk.min(buffer.len()))
        }
    }

    /// Reads `reads` times from a body that sends `chunk` bytes every `pause` milliseconds.
    fn read_for(pause: u64, chunk: usize, reads: usize) -> io::Result<()> {
        let limits = Limits { window: Duration::from_millis(40), bytes_per_second: 1000, ..Limits::default() };
        let mut body = limits.body(Trickle { chunk, pause: Duration::from_millis(pause) });
        let mut buffer = [0; 4096];
        (0..reads).try_for_each(|_| body.read(&mut buffer).map(drop))
    }

    #[test]
    fn a_trickle_is_an_error_and_a_slow_connection_is_not() {
        let error = read_for(5, 1, 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.get_ref().is_some_and(|inner| inner.is::<BodyError>()));
        assert!(
            error.to_string().contains("too slow") && error.to_string().contains("1000 bytes per second"),
            "{error}"
        );
        // Many times the minimum rate, so that the test also passes on a busy machine.
        read_for(5, 4096, 30).unwrap();
    }

    #[test]
    fn a_slow_upload_is_an_error() {
        let limits = Limits { window: Duration::from_millis(40), bytes_per_second: 1000, ..Limits::default() };
        let send = |buffer: &mut [u8], reads: usize| {
            let mut upload = limits.upload(io::repeat(0));
            (0..reads).try_for_each(|_| {
                upload.read_exact(buffer)?;
                std::thread::sleep(Duration::from_millis(5));
                Ok::<_, io::Error>(())
            })
        };
        assert_eq!(send(&mut [0; 1], 100).unwrap_err().kind(), io::ErrorKind::TimedOut);
        send(&mut [0; 4096], 30).unwrap();
    }

    #[test]
    fn time_spent_by_the_caller_does_not_count() {
        let limits = Limits { window: Duration::from_millis(20), bytes_per_second: 1000, ..Limits::default() };
        let mut body = limits.body(Trickle { chunk: 1, pause: Duration::ZERO });
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(10));
            body.read_exact(&mut [0; 1]).unwrap();
        }
    }
}
