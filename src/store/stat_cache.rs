//! Digests of files from outside, remembered for as long as the files look untouched.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Digest, Store, blobs, files};

/// A file changed more recently than this may change again without its times telling (git's "racy" entries).
const SETTLED_NS: i128 = 2_000_000_000;

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    stat: Stat,
    digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stat {
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
    inode: u64,
    device: u64,
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            size: metadata.len(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    fn is_settled(&self, now_ns: i128) -> bool {
        self.mtime_ns.max(self.ctime_ns) + SETTLED_NS <= now_ns
    }
}

type Cache = BTreeMap<PathBuf, Entry>;

impl Store {
    /// The digest of a file's content, without reading it where it is known of a file that has not been touched since.
    pub fn hash_file_cached(&self, path: &Path) -> Result<Digest> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.hash_file_cached_at(path, now.map_or(0, |d| d.as_nanos() as i128))
    }

    fn hash_file_cached_at(&self, path: &Path, now_ns: i128) -> Result<Digest> {
        let reading = || format!("reading {}", path.display());
        let path = path.canonicalize().with_context(reading)?;
        let stat = || Ok::<_, anyhow::Error>(Stat::of(&fs::metadata(&path).with_context(reading)?));
        let before = stat()?;
        let file = self.folder("stat-cache.json");
        // A cache that is not there, or garbled, is an empty one.
        let load =
            || -> Cache { fs::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default() };
        if let Some(entry) = load().get(&path).filter(|entry| entry.stat == before) {
            return Ok(entry.digest.clone());
        }
        let digest = blobs::hash_file(&path).with_context(reading)?;
        if before.is_settled(now_ns) && stat()? == before {
            let mut cache = load();
            cache.retain(|path, _| path.exists());
            cache.insert(path, Entry { stat: before, digest: digest.clone() });
            // What another process writes at this moment may be lost, and is then hashed once more. So it is where the
            // store cannot be written: the digest is right all the same.
            if let Ok(json) = serde_json::to_vec(&cache) {
                files::write(&file, &json).ok();
            }
        }
        Ok(digest)
    }
}
