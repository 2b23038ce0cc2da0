//! A cache of digests of external files, valid while their metadata is unchanged.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::files::Durability;
use super::seal::{Seal, seal, unseal};
use super::{Digest, Store, blobs};

/// A file that changed more recently than this may change again without new times (git calls such entries "racy").
const SETTLED_NS: i64 = 2_000_000_000;

const FILE: &str = "stat-cache.json";

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    stat: Stat,
    digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stat {
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    inode: u64,
    device: u64,
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            size: metadata.len(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    fn is_settled(&self, now_ns: i64) -> bool {
        self.mtime_ns.max(self.ctime_ns).saturating_add(SETTLED_NS) <= now_ns
    }
}

/// Entries by absolute path. Times are nanoseconds since 1970, up to the year 2262.
type Entries = BTreeMap<String, Entry>;

/// The content of `stat-cache.json`.
#[derive(Default, Serialize, Deserialize)]
struct Cache {
    /// Missing from the files of older versions, which have no checksum either and count as empty.
    #[serde(default)]
    files: Entries,
}

impl Store {
    /// Returns the digest of a file's content. Does not read the file if it has not changed since it was cached.
    pub fn hash_file_cached(&self, path: &Path) -> Result<Digest> {
        let digests = self.hash_files_cached(&[path])?;
        Ok(digests.into_iter().next().expect("one digest per file"))
    }

    /// Returns the digests of several files in order; see [`Store::hash_file_cached`].
    pub fn hash_files_cached<P: AsRef<Path> + Sync>(&self, paths: &[P]) -> Result<Vec<Digest>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.hash_files_cached_at(paths, now.map_or(0, |d| d.as_nanos() as i64))
    }

    fn hash_files_cached_at<P: AsRef<Path> + Sync>(&self, paths: &[P], now_ns: i64) -> Result<Vec<Digest>> {
        let cached = self.stat_cache();
        let hashed: Vec<Hashed> =
            paths.par_iter().map(|path| hash_unless_cached(path.as_ref(), &cached, now_ns)).collect::<Result<_>>()?;
        if hashed.iter().any(|hashed| hashed.new_entry.is_some()) {
            let mut cache = self.stat_cache();
            cache.retain(|path, _| Path::new(path).exists());
            cache.extend(hashed.iter().filter_map(|hashed| hashed.new_entry.clone()));
            self.write_stat_cache(cache);
        }
        Ok(hashed.into_iter().map(|hashed| hashed.digest).collect())
    }

    /// Hashes every unchanged file in the cache again, and removes wrong entries. Returns their paths.
    pub(super) fn verify_stat_cache(&self) -> Vec<PathBuf> {
        let is_wrong = |(path, entry): &(&String, &Entry)| {
            let path = Path::new(path);
            let unchanged = || fs::metadata(path).is_ok_and(|metadata| Stat::of(&metadata) == entry.stat);
            unchanged() && blobs::hash_file(path).is_ok_and(|digest| digest != entry.digest) && unchanged()
        };
        let cache = self.stat_cache();
        let wrong: Vec<PathBuf> = cache.iter().filter(is_wrong).map(|(path, _)| PathBuf::from(path)).collect();
        self.forget_cached(|path| wrong.iter().any(|wrong| wrong == path));
        wrong
    }

    /// Removes the cached digest of a file, or of all files in a folder, because it proved wrong.
    pub fn forget_hashes(&self, path: &Path) {
        if let Ok(path) = path.canonicalize() {
            self.forget_cached(|cached| cached.starts_with(&path));
        }
    }

    fn forget_cached(&self, is_forgotten: impl Fn(&Path) -> bool) {
        let mut cache = self.stat_cache();
        let before = cache.len();
        cache.retain(|path, _| !is_forgotten(Path::new(path)));
        if cache.len() < before {
            self.write_stat_cache(cache);
        }
    }

    /// Reads the cached entries; empty if the file is missing, damaged, or from an older version without checksums.
    fn stat_cache(&self) -> Entries {
        let path = self.folder(FILE);
        let bytes = self.read_record(&path).ok();
        match bytes.map(|bytes| unseal::<Cache>(&bytes)) {
            Some(Ok((cache, Seal::Intact))) => cache.files,
            Some(Err(damage)) => {
                self.warn(format!("{} is damaged and was discarded: {damage}. Files are hashed again", path.display()));
                Entries::new()
            }
            _ => Entries::new(),
        }
    }

    /// Writes the entries. If the store is read-only, or another process writes at the same time, entries are lost and
    /// their files are hashed again.
    fn write_stat_cache(&self, files: Entries) {
        if let Ok(json) = seal(&Cache { files }) {
            let _ = self.write_file(&self.folder(FILE), &json, Durability::Unsynced);
        }
    }
}

struct Hashed {
    digest: Digest,
    /// An entry to add to the cache.
    new_entry: Option<(String, Entry)>,
}

fn hash_unless_cached(path: &Path, cached: &Entries, now_ns: i64) -> Result<Hashed> {
    let reading = || format!("reading {}", path.display());
    let path = path.canonicalize().with_context(reading)?;
    let stat = || Ok::<_, anyhow::Error>(Stat::of(&fs::metadata(&path).with_context(reading)?));
    let before = stat()?;
    // JSON names are UTF-8; files with other paths are hashed every time.
    let name = path.to_str();
    if let Some(entry) = name.and_then(|name| cached.get(name)).filter(|entry| entry.stat == before) {
        return Ok(Hashed { digest: entry.digest.clone(), new_entry: None });
    }
    let digest = File::open(&path).and_then(blobs::hash).with_context(reading)?;
    let is_unchanged = before.is_settled(now_ns) && stat()? == before;
    let new_entry = name.filter(|_| is_unchanged).map(|name| {
        let entry = Entry { stat: before, digest: digest.clone() };
        (name.to_string(), entry)
    });
    Ok(Hashed { digest, new_entry })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::Duration;

    use super::*;
    use crate::store::testing::store;

    fn later(seconds: u64) -> i64 {
        let now = SystemTime::now() + Duration::from_secs(seconds);
        now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i64
    }

    /// Returns the digest of a file as if it were requested in ten seconds, when all entries have settled.
    fn hash_10s_later(store: &Store, path: &Path) -> Digest {
        store.hash_files_cached_at(&[path], later(10)).unwrap().remove(0)
    }

    /// Changes the cached digests, to distinguish cached results from fresh ones.
    fn forge(store: &Store) -> Digest {
        let mut files = store.stat_cache();
        files.values_mut().for_each(|entry| entry.digest = Digest::of(b"forged"));
        fs::write(store.folder(FILE), seal(&Cache { files }).unwrap()).unwrap();
        Digest::of(b"forged")
    }

    #[test]
    fn a_file_is_hashed_once_until_it_changes() {
        let (folder, store) = store();
        let path = folder.path().join("archive");
        fs::write(&path, b"one").unwrap();
        assert_eq!(hash_10s_later(&store, &path), Digest::of(b"one"));
        let forged = forge(&store);
        assert_eq!(store.hash_file_cached(&path).unwrap(), forged);
        // Under another name, too.
        symlink(&path, folder.path().join("link")).unwrap();
        assert_eq!(store.hash_file_cached(&folder.path().join("link")).unwrap(), forged);

        // Another file with the same size and modification time.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, b"two").unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(hash_10s_later(&store, &path), Digest::of(b"two"));

        // Written in place, with the modification time reset: the change time differs.
        forge(&store);
        let inode = fs::metadata(&path).unwrap().ino();
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, b"six").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(store.hash_file_cached(&path).unwrap(), Digest::of(b"six"));
    }

    #[test]
    fn a_recently_changed_file_is_not_cached() {
        let (folder, store) = store();
        let path = folder.path().join("archive");
        fs::write(&path, b"one").unwrap();
        store.hash_file_cached(&path).unwrap();
        assert!(!store.folder("stat-cache.json").exists());
        // A file with times in the future is not cached either.
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(SystemTime::now() + Duration::from_secs(99))
            .unwrap();
        hash_10s_later(&store, &path);
        assert!(!store.folder("stat-cache.json").exists());
    }

    #[test]
    fn missing_files_are_dropped_and_a_damaged_cache_is_discarded() {
        let (folder, store) = store();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), b"a").unwrap();
        fs::write(at("b"), b"b").unwrap();
        hash_10s_later(&store, &at("a"));
        fs::remove_file(at("a")).unwrap();
        hash_10s_later(&store, &at("b"));
        assert_eq!(store.stat_cache().len(), 1);
        fs::write(store.folder("stat-cache.json"), b"{\"garbled").unwrap();
        assert_eq!(hash_10s_later(&store, &at("b")), Digest::of(b"b"));
        assert_eq!(store.hash_file_cached(&at("b")).unwrap(), Digest::of(b"b"));
        assert_eq!(forge(&store), store.hash_file_cached(&at("b")).unwrap(), "it was cached again");
        // An altered digest without a matching checksum.
        let text = fs::read_to_string(store.folder(FILE)).unwrap();
        let other = text.replacen(Digest::of(b"forged").as_str(), Digest::of(b"c").as_str(), 1);
        fs::write(store.folder(FILE), other).unwrap();
        store.take_warnings();
        assert_eq!(hash_10s_later(&store, &at("b")), Digest::of(b"b"));
        let warnings = store.take_warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("does not match its checksum"), "{warnings:?}");
        // The format of an older version is not damage.
        fs::write(store.folder(FILE), b"{\"/a\": {}}").unwrap();
        assert!(store.stat_cache().is_empty() && store.take_warnings().is_empty());
        assert_eq!(hash_10s_later(&store, &at("b")), Digest::of(b"b"));
        // An altered digest with a matching checksum: verification finds it.
        forge(&store);
        assert_eq!(store.verify_stat_cache(), [at("b").canonicalize().unwrap()]);
        assert!(store.stat_cache().is_empty() && store.verify_stat_cache().is_empty());
        let error = format!("{:#}", store.hash_file_cached(&at("none")).unwrap_err());
        assert!(error.starts_with("reading ") && error.contains("none"), "{error}");
    }
}
