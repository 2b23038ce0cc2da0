//! Reads named files out of a `.tar.gz` that nobody vouches for.
//!
//! Nothing is written to disk, so a path can do no harm; still, only a regular file under a plain relative path counts
//! as one of those looked for. Sizes are checked before memory is taken, and what the archive may inflate to is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

/// What an archive may at most hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of one wanted member.
    pub member_bytes: u64,
    /// Bytes of the whole archive, inflated.
    pub total_bytes: u64,
    /// Members, wanted or not.
    pub members: usize,
}

/// Why an archive was refused.
#[derive(Debug)]
pub enum ArchiveError {
    /// Not a gzip stream, or not tar within it, or cut off, or damaged, or beyond [`Bounds::total_bytes`].
    Unreadable(io::Error),
    /// More than [`Bounds::members`].
    TooManyMembers(usize),
    /// A wanted member is larger than [`Bounds::member_bytes`].
    TooLarge { member: String, bytes: u64, limit: u64 },
    /// A wanted member is there twice.
    Duplicate(String),
    /// Wanted members that are not there; what was passed over although its name fitted, and why.
    Missing { members: Vec<String>, passed_over: Vec<String> },
    /// Something other than padding follows the last member.
    TrailingData,
    /// What stands in a member was refused by whoever asked for it.
    Content { member: String, cause: String },
}

impl std::fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(_) => {
                f.write_str("the archive cannot be read (get it again if it is cut off or no .tar.gz)")
            }
            Self::TooManyMembers(limit) => write!(f, "the archive has more than {limit} members"),
            Self::TooLarge { member, bytes, limit } => {
                write!(f, "`{member}` in the archive has {bytes} bytes; at most {limit} are accepted")
            }
            Self::Duplicate(member) => write!(f, "the archive has two files `{member}`"),
            Self::Missing { members, passed_over } => {
                write!(f, "the archive lacks `{}`", members.join("`, `"))?;
                if !passed_over.is_empty() {
                    write!(f, " (passed over: {})", passed_over.join("; "))?;
                }
                Ok(())
            }
            Self::TrailingData => f.write_str("the archive goes on behind its end with something else"),
            Self::Content { member, cause } => write!(f, "`{member}` in the archive: {cause}"),
        }
    }
}

impl std::error::Error for ArchiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(e) => Some(e),
            _ => None,
        }
    }
}

/// Reads the regular files called `wanted`, in whatever folders they lie, and gives each one's bytes to `parse`.
///
/// Reads to the end of the stream, so that gzip's checksum is verified. Every wanted file must be there once.
pub fn read_members<T>(
    reader: impl Read,
    wanted: &[&str],
    bounds: Bounds,
    mut parse: impl FnMut(&str, Vec<u8>) -> Result<T, String>,
) -> Result<BTreeMap<String, T>, ArchiveError> {
    let inflated = Bounded { inner: MultiGzDecoder::new(reader), left: bounds.total_bytes, limit: bounds.total_bytes };
    let mut archive = tar::Archive::new(inflated);
    let mut found = BTreeMap::new();
    let mut passed_over = BTreeSet::new();
    for (index, entry) in archive.entries().map_err(ArchiveError::Unreadable)?.enumerate() {
        let mut entry = entry.map_err(ArchiveError::Unreadable)?;
        if index >= bounds.members {
            return Err(ArchiveError::TooManyMembers(bounds.members));
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(&name) = wanted.iter().find(|&&name| path.rsplit('/').next() == Some(name)) else { continue };
        let objection = if entry.header().entry_type() != EntryType::Regular {
            Some("not a regular file")
        } else if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            Some("a path that leads out of the archive")
        } else {
            None
        };
        if let Some(objection) = objection {
            passed_over.insert(format!("`{}`, {objection}", path.escape_debug()));
            continue;
        }
        if found.contains_key(name) {
            return Err(ArchiveError::Duplicate(name.to_string()));
        }
        let bytes = entry.size();
        if bytes > bounds.member_bytes {
            return Err(ArchiveError::TooLarge { member: name.to_string(), bytes, limit: bounds.member_bytes });
        }
        let mut content = Vec::with_capacity(bytes as usize);
        entry.read_to_end(&mut content).map_err(ArchiveError::Unreadable)?;
        if content.len() as u64 != bytes {
            return Err(ArchiveError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        let parsed = parse(name, content).map_err(|cause| ArchiveError::Content { member: name.to_string(), cause })?;
        found.insert(name.to_string(), parsed);
    }
    only_padding(archive.into_inner())?;
    let members: Vec<String> =
        wanted.iter().filter(|&&name| !found.contains_key(name)).map(|name| name.to_string()).collect();
    if members.is_empty() {
        Ok(found)
    } else {
        let passed_over = passed_over.into_iter().take(3).collect();
        Err(ArchiveError::Missing { members, passed_over })
    }
}

/// Reads the zeros behind the last member, to the end of the stream.
fn only_padding(mut rest: impl Read) -> Result<(), ArchiveError> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) if buffer[..n].iter().any(|&b| b != 0) => return Err(ArchiveError::TrailingData),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ArchiveError::Unreadable(e)),
        }
    }
}

/// A reader that fails once `limit` bytes were read and more is there.
struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(format!("it inflates to more than {} bytes", self.limit))),
        }
        Ok(n)
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
