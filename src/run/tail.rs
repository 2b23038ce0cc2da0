//! Reads the lines of a growing file, in bounded memory and time.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::store::open_file;

/// The maximum number of bytes that are read at once.
const PIECE_BYTES: u64 = 1 << 20;
/// The maximum length of a line. Longer lines are skipped.
const MAX_LINE_BYTES: usize = 4 << 20;
/// The maximum number of new bytes that one call reads. If there are more, it reads only the last ones.
const MAX_NEW_BYTES: u64 = 64 << 20;

/// A reader of the lines that are appended to a file.
pub(super) struct Tail {
    path: PathBuf,
    offset: u64,
    /// The incomplete line at the end of what was read.
    rest: Vec<u8>,
    /// Whether that line is too long, or its beginning was skipped.
    is_partial: bool,
    has_skipped: bool,
}

impl Tail {
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, rest: vec![], is_partial: false, has_skipped: false }
    }

    /// Sets the path after the file was moved.
    pub(super) fn set_path(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Whether lines were skipped, because the file had grown too much.
    pub(super) fn has_skipped(&self) -> bool {
        self.has_skipped
    }

    /// Calls `handle` with the lines that were completed since the last call, in pieces. Does nothing while the file
    /// does not exist. A file that has become shorter was replaced, and is read from its start.
    pub(super) fn read_lines(&mut self, mut handle: impl FnMut(Vec<String>)) {
        // After an error, the next call continues.
        let _ = self.try_read_lines(&mut handle);
    }

    fn try_read_lines(&mut self, handle: &mut impl FnMut(Vec<String>)) -> std::io::Result<()> {
        let (mut file, length) = open_file(&self.path)?;
        if length < self.offset {
            (self.offset, self.rest, self.is_partial) = (0, vec![], false);
        }
        if length - self.offset > MAX_NEW_BYTES {
            self.offset = length - MAX_NEW_BYTES;
            self.rest.clear();
            (self.is_partial, self.has_skipped) = (true, true);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        // The next call reads what is appended in the meantime.
        let mut file = file.take(length - self.offset);
        let mut piece = vec![];
        while file.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)? > 0 {
            self.offset += piece.len() as u64;
            let lines = self.split(&piece);
            if !lines.is_empty() {
                handle(lines);
            }
            piece.clear();
        }
        Ok(())
    }

    /// Adds bytes and returns the lines that they complete.
    fn split(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = vec![];
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.rest.extend(&bytes[..end]);
            let line = std::mem::take(&mut self.rest);
            if !std::mem::take(&mut self.is_partial) && line.len() <= MAX_LINE_BYTES {
                lines.push(String::from_utf8_lossy(&line).trim_end_matches('\r').to_string());
            }
            bytes = &bytes[end + 1..];
        }
        if !self.is_partial {
            self.rest.extend(bytes);
        }
        if self.rest.len() > MAX_LINE_BYTES {
            (self.rest, self.is_partial) = (vec![], true);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn lines(tail: &mut Tail) -> Vec<String> {
        let mut all = vec![];
        tail.read_lines(|lines| all.extend(lines));
        all
    }

    #[test]
    fn each_complete_line_is_returned_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut tail = Tail::new(path.clone());
        assert_eq!(lines(&mut tail), [""; 0]);
        let mut file = File::create(&path).unwrap();
        let mut append = |text: &str| {
            file.write_all(text.as_bytes()).unwrap();
            lines(&mut tail)
        };
        assert_eq!(append("one\ntw"), ["one"]);
        assert_eq!(append("o\n"), ["two"]);
        assert_eq!(append(""), [""; 0]);
        // A line that ends within a character is incomplete.
        file.write_all(&"sü\n".as_bytes()[..2]).unwrap();
        assert_eq!(lines(&mut tail), [""; 0]);
        file.write_all(&"sü\n".as_bytes()[2..]).unwrap();
        assert_eq!(lines(&mut tail), ["sü"]);
        let shorter = folder.path().join("another");
        std::fs::write(&shorter, "new\n").unwrap();
        tail.set_path(shorter);
        assert_eq!(lines(&mut tail), ["new"]);
    }

    #[test]
    fn only_the_end_of_a_huge_file_is_read_and_long_lines_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut tail = Tail::new(path.clone());
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(lines(&mut tail), ["one"]);
        let mut file = File::options().append(true).open(&path).unwrap();
        // Sparse: takes no space on the disk.
        file.set_len(200 << 30).unwrap();
        file.write_all(b"end of a long line\nlast\n").unwrap();
        assert_eq!(lines(&mut tail), ["last"]);
        assert!(tail.has_skipped() && tail.rest.capacity() < 2 * MAX_LINE_BYTES);
        file.set_len((200 << 30) + (30 << 20)).unwrap();
        assert_eq!(lines(&mut tail), [""; 0]);
        file.write_all(b"\nnew\n").unwrap();
        assert_eq!(lines(&mut tail), ["new"]);
        assert!(tail.rest.capacity() < 2 * MAX_LINE_BYTES);
    }
}
