//! Blobs: read-only files named after the SHA-256 of their content.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::digest::Hasher;
use super::files::{self, Durability};
use super::{Digest, Store};

/// Why a blob cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The blob does not exist.
    Missing {
        path: PathBuf,
    },
    /// The content of the file does not match its name, or the file is not a regular file.
    Corrupt {
        path: PathBuf,
    },
    Io {
        path: PathBuf,
        source: io::Error,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "the blob {} is missing from the store", path.display()),
            Self::Corrupt { path } => {
                write!(f, "the blob {} is damaged: its content does not match its name", path.display())
            }
            Self::Io { path, .. } => write!(f, "reading the blob {}", path.display()),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Missing { .. } | Self::Corrupt { .. } => None,
        }
    }
}

impl Store {
    /// Returns the path of a blob, whether or not it exists.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder("blobs").join(digest.shard()).join(digest.as_str())
    }

    /// Stores `bytes`. An existing blob is replaced only if it is damaged.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        let _guard = self.guard()?;
        self.add_to_lease(&digest)?;
        if !self.size(&digest).is_ok_and(|size| size == bytes.len() as u64) || self.check(&digest).is_err() {
            let mut file = self.temporary(&self.folder("blobs").join(digest.shard()))?;
            file.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
            publish_blob(file, &path)?;
        }
        Ok(digest)
    }

    /// Stores the content of a file, which may be larger than memory.
    pub fn put_file(&self, path: &Path) -> Result<Digest> {
        let mut source = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let _guard = self.guard()?;
        let blobs = self.folder("blobs");
        let mut file = self.temporary(&blobs)?;
        let mut hasher = Hasher::default();
        let mut size = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n =
                read_uninterrupted(&mut source, &mut buffer).with_context(|| format!("reading {}", path.display()))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n])
                .with_context(|| format!("copying {} to {}", path.display(), blobs.display()))?;
            size += n as u64;
        }
        let digest = hasher.finish();
        self.add_to_lease(&digest)?;
        if !self.size(&digest).is_ok_and(|existing| existing == size) || self.check(&digest).is_err() {
            self.create_folder(&blobs.join(digest.shard()))?;
            publish_blob(file, &self.blob_path(&digest))?;
        }
        Ok(digest)
    }

    /// Reads a blob and verifies its digest.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, ReadError> {
        let path = self.blob_path(digest);
        match self.read_file(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(bytes),
            Ok(_) => {
                let error = ReadError::Corrupt { path };
                self.warn(error.to_string());
                Err(error)
            }
            Err(e) => Err(read_error(path, e)),
        }
    }

    /// Verifies a blob's digest by reading all of it, in bounded memory.
    pub fn check(&self, digest: &Digest) -> Result<(), ReadError> {
        let path = self.blob_path(digest);
        match self.open_file(&path).and_then(|(file, _)| hash(file)) {
            Ok(found) if found == *digest => Ok(()),
            Ok(_) => Err(ReadError::Corrupt { path }),
            Err(e) => Err(read_error(path, e)),
        }
    }

    /// Whether a blob of this size exists and is intact. Reads it only if its modification time is not the fixed time
    /// of all blobs, which shows that it was changed or copied. If the blob is intact, resets the time.
    pub(super) fn is_intact(&self, digest: &Digest, size: u64) -> bool {
        let path = self.blob_path(digest);
        let metadata = match self.check_folder(files::parent_folder(&path)).and_then(|()| fs::symlink_metadata(&path)) {
            Ok(metadata) if metadata.is_file() && metadata.len() == size => metadata,
            _ => return false,
        };
        if metadata.modified().is_ok_and(|time| time == blob_time()) {
            return true;
        }
        let is_intact = self.check(digest).is_ok();
        if is_intact {
            // If this fails, the blob is read again next time.
            let _ = self.open_file(&self.blob_path(digest)).and_then(|(file, _)| file.set_modified(blob_time()));
        }
        is_intact
    }

    /// Returns the size of a blob in bytes without reading it. Links are invalid, because they could lead out of the
    /// store.
    pub(super) fn size(&self, digest: &Digest) -> Result<u64, ReadError> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Err(e) => Err(read_error(path, e)),
            Ok(metadata) if !metadata.is_file() => Err(ReadError::Corrupt { path }),
            Ok(metadata) => Ok(metadata.len()),
        }
    }
}

fn read_error(path: PathBuf, source: io::Error) -> ReadError {
    match source.kind() {
        ErrorKind::NotFound => ReadError::Missing { path },
        ErrorKind::InvalidData => ReadError::Corrupt { path },
        _ => ReadError::Io { path, source },
    }
}

/// The modification time of all blobs: a second after the epoch, because some programs treat the epoch itself as
/// missing.
fn blob_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1)
}

/// Makes a temporary file read-only and renames it to its final path.
pub(super) fn publish_blob(file: NamedTempFile, path: &Path) -> Result<()> {
    let read_only = || {
        let mode = file.as_file().metadata()?.permissions().mode();
        file.as_file().set_modified(blob_time())?;
        file.as_file().set_permissions(Permissions::from_mode(mode & 0o444))
    };
    read_only().with_context(|| format!("making {} read-only", path.display()))?;
    files::publish(file, path, Durability::Synced)
}

/// Returns the digest of a file's content, in bounded memory.
pub fn hash_file(path: &Path) -> io::Result<Digest> {
    hash(File::open(path)?)
}

/// Returns the digest of an open file's content, in bounded memory.
pub(super) fn hash(mut file: File) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match read_uninterrupted(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Like `read`, but retries if it is interrupted by a signal.
fn read_uninterrupted(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            finished => return finished,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::store::testing::{damage, store, temporaries};

    #[test]
    fn stored_blobs_can_be_read() {
        let (_folder, store) = store();
        for bytes in [&b""[..], b"abc", &[7; 3_000_000]] {
            let digest = store.put(bytes).unwrap();
            assert_eq!(digest, Digest::of(bytes));
            assert_eq!(store.read(&digest).unwrap(), bytes);
            store.check(&digest).unwrap();
            let path = store.blob_path(&digest);
            assert!(path.ends_with(format!("store/blobs/{}/{digest}", &digest.as_str()[..2])));
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o222, 0);
        }
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn external_files_are_stored_in_pieces() {
        let (folder, store) = store();
        // Longer than the buffer, and not a multiple of it.
        let bytes: Vec<u8> = (0..2_500_000u32).map(|i| (i % 251) as u8).collect();
        for bytes in [&bytes[..], b""] {
            let path = folder.path().join("outside");
            fs::write(&path, bytes).unwrap();
            assert_eq!(store.put_file(&path).unwrap(), Digest::of(bytes));
            assert_eq!(store.read(&Digest::of(bytes)).unwrap(), bytes);
            assert_eq!(fs::metadata(store.blob_path(&Digest::of(bytes))).unwrap().mode() & 0o222, 0);
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(temporaries(&store), 0);
        let error = format!("{:#}", store.put_file(&folder.path().join("none")).unwrap_err());
        assert!(error.starts_with("opening ") && error.contains("/none: "), "{error}");
    }

    #[test]
    fn existing_blobs_are_not_replaced() {
        let (folder, store) = store();
        let digest = store.put(b"content").unwrap();
        let inode = || fs::metadata(store.blob_path(&digest)).unwrap().ino();
        let before = inode();
        fs::write(folder.path().join("outside"), b"content").unwrap();
        store.put(b"content").unwrap();
        store.put_file(&folder.path().join("outside")).unwrap();
        assert_eq!(inode(), before);
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn damage_is_detected_and_repaired() {
        let (folder, store) = store();
        let digest = store.put(b"content").unwrap();
        let path = store.blob_path(&digest);
        let outside = folder.path().join("outside");
        fs::write(&outside, b"content").unwrap();
        for damaged in [&b"cOntent"[..], b"cont", b"", b"content and more"] {
            for repair in [&|| store.put(b"content"), &|| store.put_file(&outside)] as [&dyn Fn() -> Result<Digest>; 2]
            {
                damage(&path, damaged);
                assert!(matches!(store.read(&digest), Err(ReadError::Corrupt { .. })));
                assert!(matches!(store.check(&digest), Err(ReadError::Corrupt { .. })));
                repair().unwrap();
                assert_eq!(store.read(&digest).unwrap(), b"content");
            }
        }
    }

    #[test]
    fn read_errors_have_a_reason() {
        let (_folder, store) = store();
        let digest = Digest::of(b"content");
        assert!(matches!(store.read(&digest), Err(ReadError::Missing { .. })));
        let error = store.check(&digest).unwrap_err().to_string();
        assert!(error.contains(digest.as_str()) && error.contains("missing"), "{error}");
        // A file in place of a folder.
        let shard = store.blob_path(&digest).parent().unwrap().to_path_buf();
        fs::create_dir_all(shard.parent().unwrap()).unwrap();
        fs::write(&shard, b"").unwrap();
        let error = store.read(&digest).unwrap_err();
        assert!(matches!(error, ReadError::Io { .. }));
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn links_are_not_followed() {
        let (folder, store) = store();
        let digest = store.put(b"content").unwrap();
        let path = store.blob_path(&digest);
        let outside = folder.path().join("outside");
        fs::write(&outside, b"content").unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&outside, &path).unwrap();
        // Even if the content matches, because the target of the link may change at any time.
        assert!(matches!(store.read(&digest), Err(ReadError::Corrupt { .. })));
        assert!(matches!(store.check(&digest), Err(ReadError::Corrupt { .. })));
        store.put(b"content").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(store.read(&digest).unwrap(), b"content");
        assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o222, 0o200, "the file outside keeps its permissions");
    }

    #[test]
    fn threads_can_store_the_same_blob() {
        let (_folder, store) = store();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    for i in 0..20u8 {
                        // One thread damages half of the blobs at the same time.
                        let bytes = [i; 1000];
                        let digest = store.put(&bytes).unwrap();
                        if thread == 0 && i % 2 == 0 {
                            damage(&store.blob_path(&digest), b"damaged");
                            store.put(&bytes).unwrap();
                        }
                    }
                });
            }
        });
        (0..20).for_each(|i| assert_eq!(store.read(&Digest::of(&[i; 1000])).unwrap(), [i; 1000]));
        assert_eq!(temporaries(&store), 0);
    }
}
