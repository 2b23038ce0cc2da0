//! Reads the lines of a growing file.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::store::open_file;

pub struct Tail {
    path: PathBuf,
    offset: u64,
    /// The beginning of a line that has not ended yet.
    rest: Vec<u8>,
}

impl Tail {
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, rest: vec![] }
    }

    /// Continues with the same file under another path.
    pub fn moved_to(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Returns the lines that were completed since the last call; none while the file does not exist. A file that has
    /// become shorter was replaced, and is read from its start.
    pub fn lines(&mut self) -> Vec<String> {
        let mut read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = vec![];
            let (mut file, length) = open_file(&self.path)?;
            if length < self.offset {
                (self.offset, self.rest) = (0, vec![]);
            }
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let Ok(bytes) = read() else { return vec![] };
        self.offset += bytes.len() as u64;
        self.rest.extend(bytes);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { return vec![] };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().map(str::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn each_complete_line_is_returned_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.lines(), [""; 0]);
        let mut file = File::create(&path).unwrap();
        let mut said = |text: &str| {
            file.write_all(text.as_bytes()).unwrap();
            tail.lines()
        };
        assert_eq!(said("one\ntw"), ["one"]);
        assert_eq!(said("o\n"), ["two"]);
        assert_eq!(said(""), [""; 0]);
        // A line that ends within a character is incomplete.
        file.write_all(&"sü\n".as_bytes()[..2]).unwrap();
        assert_eq!(tail.lines(), [""; 0]);
        file.write_all(&"sü\n".as_bytes()[2..]).unwrap();
        assert_eq!(tail.lines(), ["sü"]);
        let shorter = folder.path().join("another");
        std::fs::write(&shorter, "new\n").unwrap();
        tail.moved_to(shorter);
        assert_eq!(tail.lines(), ["new"]);
    }
}
