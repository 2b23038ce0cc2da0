//! Contents, each in a read-only file named by its SHA-256.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::digest::Hasher;
use super::{Digest, Store, files};

/// Why a blob cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// There is no such blob.
    Missing {
        path: PathBuf,
    },
    /// What lies there is not the blob: other bytes, or no regular file.
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
                write!(f, "the blob {} is damaged: its content is not its name's", path.display())
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
    /// Where the blob lies or would lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder("blobs").join(digest.shard()).join(digest.as_str())
    }

    /// Keeps `bytes`. A blob that is there already is left alone, unless it is damaged: then it is replaced.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if !matches!(self.size(&digest), Ok(size) if size == bytes.len() as u64)
            || !fs::read(&path).is_ok_and(|there| there == bytes)
        {
            let mut file = files::temporary(&self.folder("blobs").join(digest.shard()))?;
            file.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
            publish_blob(file, &path)?;
        }
        Ok(digest)
    }

    /// Keeps the content of a file, which may be larger than memory.
    pub fn put_file(&self, path: &Path) -> Result<Digest> {
        let mut source = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let blobs = self.folder("blobs");
        let mut file = files::temporary(&blobs)?;
        let mut hasher = Hasher::default();
        let mut size = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = read_some(&mut source, &mut buffer).with_context(|| format!("reading {}", path.display()))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n])
                .with_context(|| format!("copying {} to {}", path.display(), blobs.display()))?;
            size += n as u64;
        }
        let digest = hasher.finish();
        if !matches!(self.size(&digest), Ok(there) if there == size) || self.check(&digest).is_err() {
            files::create_folder(&blobs.join(digest.shard()))?;
            publish_blob(file, &self.blob_path(&digest))?;
        }
        Ok(digest)
    }

    /// A blob's content, which is what was put: its digest is checked.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, ReadError> {
        let size = self.size(digest)?;
        let path = self.blob_path(digest);
        let mut bytes = Vec::with_capacity(size as usize);
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(source) => Err(ReadError::Io { path, source }),
            Ok(_) if Digest::of(&bytes) != *digest => Err(ReadError::Corrupt { path }),
            Ok(_) => Ok(bytes),
        }
    }

    /// Whether a blob is there, undamaged; reads it all, in little memory.
    pub fn check(&self, digest: &Digest) -> Result<(), ReadError> {
        self.size(digest)?;
        let path = self.blob_path(digest);
        match hash_file(&path) {
            Err(source) => Err(ReadError::Io { path, source }),
            Ok(there) if there != *digest => Err(ReadError::Corrupt { path }),
            Ok(_) => Ok(()),
        }
    }

    /// A blob's length in bytes, without reading it. A link is no blob: it could lead out of the store.
    pub(super) fn size(&self, digest: &Digest) -> Result<u64, ReadError> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Err(ReadError::Missing { path }),
            Err(source) => Err(ReadError::Io { path, source }),
            Ok(metadata) if !metadata.is_file() => Err(ReadError::Corrupt { path }),
            Ok(metadata) => Ok(metadata.len()),
        }
    }
}

fn publish_blob(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file()
        .set_permissions(Permissions::from_mode(0o444))
        .with_context(|| format!("making {} read-only", path.display()))?;
    files::publish(file, path)
}

/// The digest of a file's content, in little memory.
pub(super) fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match read_some(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// `read`, once more where a signal came between.
fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
