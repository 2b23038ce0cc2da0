//! Reads untrusted tar archives.
//!
//! [`walk`] visits the members of any archive in bounded memory. [`read_members`] reads named files from a `.tar.gz`:
//! nothing is written to disk, so a path cannot escape. Even so, only a regular file under a plain relative path
//! matches a requested name. Sizes are checked before memory is allocated, and the inflated size is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

/// The limits of an archive.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The maximum size of a requested member.
    pub member_bytes: u64,
    /// The maximum decompressed size of the archive.
    pub total_bytes: u64,
    /// The maximum number of members, requested or not.
    pub members: usize,
}

/// The reason why an archive is rejected.
#[derive(Debug)]
pub enum ArchiveError {
    /// It is not a `.tar.gz` file, is truncated or damaged, or exceeds [`Bounds::total_bytes`].
    Unreadable(io::Error),
    /// It has more than [`Bounds::members`] members.
    TooManyMembers(usize),
    /// A requested member is larger than [`Bounds::member_bytes`].
    TooLarge { member: String, bytes: u64, limit: u64 },
    /// A requested member exists twice.
    Duplicate(String),
    /// Requested members are missing. `ignored` lists members with a matching name that were ignored, with the reason.
    Missing { members: Vec<String>, ignored: Vec<String> },
    /// Something other than padding follows the last member.
    TrailingData,
    /// The caller rejected the content of a member.
    Content { member: String, cause: String },
}

impl std::fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(_) => {
                f.write_str("the archive cannot be read: it is damaged, truncated or not a .tar.gz file")
            }
            Self::TooManyMembers(limit) => write!(f, "the archive has more than {limit} members"),
            Self::TooLarge { member, bytes, limit } => {
                write!(f, "`{member}` in the archive has {bytes} bytes; at most {limit} are accepted")
            }
            Self::Duplicate(member) => write!(f, "the archive contains `{member}` twice"),
            Self::Missing { members, ignored } => {
                write!(f, "the archive does not contain `{}`", members.join("`, `"))?;
                if !ignored.is_empty() {
                    write!(f, " (ignored: {})", ignored.join("; "))?;
                }
                Ok(())
            }
            Self::TrailingData => f.write_str("unexpected data follows the end of the archive"),
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

/// The maximum size of a header extension, which holds a name that is too long for the header itself.
const MAX_EXTENSION: u64 = 64 << 10;

/// The maximum number of extensions per member; real archives have one or two.
const MAX_EXTENSIONS: usize = 8;

/// A member of an archive.
pub struct Member<'a> {
    /// The path, byte for byte as in the archive.
    pub path: Vec<u8>,
    pub kind: EntryType,
    /// The size of the content in bytes, according to the header.
    pub size: u64,
    pub content: &'a mut dyn Read,
}

/// Calls `visit` with each member in order, until a call fails. Returns the reader, positioned after the last member.
/// `unreadable` converts errors of the archive itself. A header extension takes at most `MAX_EXTENSION` bytes of
/// memory, whatever size it claims.
pub fn walk<R: Read, E>(
    reader: R,
    unreadable: impl Fn(io::Error) -> E,
    mut visit: impl FnMut(Member) -> Result<(), E>,
) -> Result<R, E> {
    let mut archive = tar::Archive::new(reader);
    // In raw mode, the `tar` crate does not read extensions. It would load them whole, whatever their length.
    let entries = archive.entries().map_err(&unreadable)?.raw(true);
    let mut path: Option<Vec<u8>> = None;
    let mut size: Option<u64> = None;
    let mut extensions = 0;
    for entry in entries {
        let mut entry = entry.map_err(&unreadable)?;
        let kind = entry.header().entry_type();
        let is_name = kind.is_gnu_longname();
        let is_pax = kind.is_pax_local_extensions();
        if is_name || is_pax || kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
            extensions += 1;
            if extensions > MAX_EXTENSIONS {
                let text = format!("a member has more than {MAX_EXTENSIONS} extended headers");
                return Err(unreadable(io::Error::other(text)));
            }
            let bytes = read_extension(&mut entry).map_err(&unreadable)?;
            let fields = match (is_name, is_pax) {
                (true, _) => (Some(bytes), None),
                (_, true) => parse_pax(&bytes),
                _ => (None, None),
            };
            path = fields.0.or(path);
            size = fields.1.or(size);
            continue;
        }
        extensions = 0;
        let declared = entry.size();
        if size.take().is_some_and(|size| size != declared) {
            return Err(unreadable(io::Error::other("a member has two different sizes")));
        }
        let path = path.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        visit(Member { path, kind, size: declared, content: &mut entry })?;
    }
    Ok(archive.into_inner())
}

/// Reads the content of an extension.
fn read_extension<R: Read>(entry: &mut tar::Entry<R>) -> io::Result<Vec<u8>> {
    if entry.size() > MAX_EXTENSION {
        let text = format!("an extended header has {} bytes; at most {MAX_EXTENSION} are accepted", entry.size());
        return Err(io::Error::other(text));
    }
    let mut bytes = vec![];
    entry.read_to_end(&mut bytes)?;
    // Names are NUL-terminated.
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// Parses the path and the size in a POSIX extended header.
fn parse_pax(bytes: &[u8]) -> (Option<Vec<u8>>, Option<u64>) {
    let (mut path, mut size) = (None, None);
    for field in tar::PaxExtensions::new(bytes).flatten() {
        match field.key_bytes() {
            b"path" => path = Some(field.value_bytes().to_vec()),
            b"size" => size = field.value().ok().and_then(|size| size.parse().ok()).or(Some(u64::MAX)),
            _ => {}
        }
    }
    (path, size)
}

/// Reads the regular files named in `wanted`, in any folder, and passes the content of each to `parse`.
///
/// Reads to the end of the stream, to verify the gzip checksum. Every file in `wanted` must exist exactly once.
pub fn read_members<T>(
    reader: impl Read,
    wanted: &[&str],
    bounds: Bounds,
    mut parse: impl FnMut(&str, Vec<u8>) -> Result<T, String>,
) -> Result<BTreeMap<String, T>, ArchiveError> {
    let inflated =
        Bounded { inner: MultiGzDecoder::new(reader), remaining: bounds.total_bytes, limit: bounds.total_bytes };
    let mut found = BTreeMap::new();
    let mut ignored = BTreeSet::new();
    let mut members = 0;
    let rest = walk(inflated, ArchiveError::Unreadable, |member| {
        members += 1;
        if members > bounds.members {
            return Err(ArchiveError::TooManyMembers(bounds.members));
        }
        let path = String::from_utf8_lossy(&member.path).into_owned();
        let Some(&name) = wanted.iter().find(|&&name| path.rsplit('/').next() == Some(name)) else { return Ok(()) };
        let reason = if member.kind != EntryType::Regular {
            Some("not a regular file")
        } else if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            Some("a path that leads out of the archive")
        } else {
            None
        };
        if let Some(reason) = reason {
            ignored.insert(format!("`{}`, {reason}", path.escape_debug()));
            return Ok(());
        }
        if found.contains_key(name) {
            return Err(ArchiveError::Duplicate(name.to_string()));
        }
        let bytes = member.size;
        if bytes > bounds.member_bytes {
            return Err(ArchiveError::TooLarge { member: name.to_string(), bytes, limit: bounds.member_bytes });
        }
        let mut content = Vec::with_capacity(bytes as usize);
        member.content.read_to_end(&mut content).map_err(ArchiveError::Unreadable)?;
        if content.len() as u64 != bytes {
            return Err(ArchiveError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        let parsed = parse(name, content).map_err(|cause| ArchiveError::Content { member: name.to_string(), cause })?;
        found.insert(name.to_string(), parsed);
        Ok(())
    })?;
    expect_padding(rest)?;
    let members: Vec<String> =
        wanted.iter().filter(|&&name| !found.contains_key(name)).map(|name| name.to_string()).collect();
    if members.is_empty() {
        Ok(found)
    } else {
        let ignored = ignored.into_iter().take(3).collect();
        Err(ArchiveError::Missing { members, ignored })
    }
}

/// Reads to the end of the stream, and fails if it contains anything but zeros.
fn expect_padding(mut rest: impl Read) -> Result<(), ArchiveError> {
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

/// A reader that fails after more than `limit` bytes.
struct Bounded<R> {
    inner: R,
    remaining: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.remaining.checked_sub(n as u64) {
            Some(remaining) => self.remaining = remaining,
            None => return Err(io::Error::other(format!("it decompresses to more than {} bytes", self.limit))),
        }
        Ok(n)
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
