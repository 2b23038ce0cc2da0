//! A shared cache: a folder, or a bucket of S3 or a compatible server.
//!
//! A cache has the layout of a store, with records under `actions/` and blobs under `blobs/`, so the `store` folder of
//! another `runs` folder can serve as one. It is read-through: before a stage runs, its key is looked up. Everything
//! read from it is verified (see [`Store::import_blob`]). Only `push` writes to it, and repairs damaged entries.

mod s3;

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::OFlags;

use crate::config::InputError;
use crate::io::http::BodyError;
use crate::plan::Preimage;
use crate::store::{Digest, Key, MAX_RECORD_BYTES, Record, Store, hash_file};
use s3::S3;

/// A shared cache of results.
pub enum Remote {
    Folder(PathBuf),
    S3(Box<S3>),
}

/// Why the cache as a whole cannot be used, as opposed to a single damaged entry.
#[derive(Debug)]
pub struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

impl Unavailable {
    /// Whether an error concerns the whole cache, so that the next request would fail too.
    pub fn is_cause_of(error: &anyhow::Error) -> bool {
        let is_lost_connection = |error: &io::Error| error.get_ref().is_some_and(|inner| inner.is::<BodyError>());
        error.is::<Unavailable>() || error.chain().any(|cause| cause.downcast_ref().is_some_and(is_lost_connection))
    }
}

/// What [`Remote::push`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    New,
    /// It was present but damaged.
    Repaired,
    /// It was present and intact.
    Present,
}

impl Remote {
    /// Opens `s3://BUCKET/PREFIX` or a folder. Credentials, region and endpoint of S3 come from the environment
    /// variables of the AWS tools.
    pub fn open(address: &str) -> Result<Self> {
        match address.strip_prefix("s3://") {
            Some(rest) => Ok(Self::S3(Box::new(S3::open(rest)?))),
            None => {
                ensure!(
                    !address.contains("://"),
                    InputError(format!("remote {address}: expected a folder or `s3://BUCKET/PREFIX`"))
                );
                Ok(Self::Folder(address.into()))
            }
        }
    }

    /// Opens a file of the cache; None if it does not exist. An S3 object of more than `max_bytes` is an error.
    fn get(&self, path: &Path, max_bytes: u64) -> Result<Option<Box<dyn Read>>> {
        match self {
            Self::Folder(folder) => match open(&folder.join(path)) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                opened => {
                    let file = opened.with_context(|| format!("opening {}", folder.join(path).display()))?;
                    Ok(Some(Box::new(file)))
                }
            },
            Self::S3(s3) => Ok(s3.get(&path.to_string_lossy(), max_bytes)?.map(|content| Box::new(content) as _)),
        }
    }

    /// Whether a blob with this digest and size is present. Hashes the file in a folder, but compares only the size of
    /// an S3 object.
    fn has(&self, digest: &Digest, size: u64) -> Result<bool> {
        let path = Record::blob_path(digest);
        match self {
            Self::Folder(folder) => {
                let path = folder.join(path);
                let is_intact =
                    |file: File| Ok::<_, io::Error>(file.metadata()?.len() == size && hash_file(&path)? == *digest);
                match open(&path).and_then(is_intact) {
                    Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(false),
                    // Unreadable because of its permissions or a disk error: try to replace it.
                    found => Ok(found.unwrap_or(false)),
                }
            }
            Self::S3(s3) => Ok(s3.size(&path.to_string_lossy())? == Some(size)),
        }
    }

    /// Writes a file's content to a path atomically.
    fn put(&self, path: &Path, from: &Path) -> Result<()> {
        let open = || File::open(from).with_context(|| format!("opening {}", from.display()));
        match self {
            Self::Folder(folder) => {
                let to = folder.join(path);
                let parent = to.parent().unwrap_or(folder);
                fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
                let mut source = open()?;
                let mut copy = || {
                    // Readable by others as far as the umask allows.
                    let shared = Permissions::from_mode(0o666);
                    let temporary = tempfile::Builder::new().prefix(".tmp-").permissions(shared).tempfile_in(parent)?;
                    io::copy(&mut source, &mut temporary.as_file())?;
                    let mode = temporary.as_file().metadata()?.permissions().mode();
                    temporary.as_file().set_permissions(Permissions::from_mode(mode & 0o444))?;
                    temporary.as_file().sync_all()?;
                    temporary.persist(&to).map_err(|e| e.error)
                };
                copy().map(drop).with_context(|| format!("copying to {}", to.display()))
            }
            Self::S3(s3) => s3.put(&path.to_string_lossy(), open()?),
        }
    }

    /// Reads the record of a key; None if there is none. The inner error is the reason why the record is invalid.
    fn record(&self, key: &Key) -> Result<Option<Result<Record>>> {
        let is_not_a_file =
            |e: &anyhow::Error| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::InvalidData);
        let content = match self.get(&Record::path(key), MAX_RECORD_BYTES) {
            Err(e) if is_not_a_file(&e) => return Ok(Some(Err(e))),
            content => content?,
        };
        let Some(content) = content else { return Ok(None) };
        let mut bytes = vec![];
        content.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).context("reading a record")?;
        Ok(Some(Record::parse(key, bytes).and_then(checked)))
    }

    /// Copies the result of `key` from the cache to the store; returns false if the cache has none.
    pub fn fetch(&self, store: &Store, key: &Key) -> Result<bool> {
        let Some(record) = self.record(key)?.transpose()? else { return Ok(false) };
        for (name, (digest, size)) in &record.outputs {
            let Some(content) = self.get(&Record::blob_path(digest), *size)? else {
                bail!("the record of the key {key} exists, but its blob {digest} ({name}) is missing");
            };
            store.import_blob(digest, *size, content)?;
        }
        store.import_record(&record)?;
        Ok(true)
    }

    /// Copies the result of `key` to the cache, the record last, and replaces damaged entries.
    pub fn push(&self, store: &Store, key: &Key) -> Result<Pushed> {
        let ours = store
            .export_record(key)?
            .with_context(|| format!("the result of the key {key} was removed from the store"))?;
        let theirs = self.record(key)?;
        // A stage that is not bit-reproducible can have different, equally valid outputs in the cache.
        if let Some(Ok(theirs)) = &theirs
            && theirs.outputs != ours.outputs
            && theirs.outputs.values().map(|(digest, size)| self.has(digest, *size)).all(|has| has.unwrap_or(false))
        {
            return Ok(Pushed::Present);
        }
        let is_same = matches!(&theirs, Some(Ok(theirs)) if theirs.outputs == ours.outputs);
        let mut pushed = if theirs.is_none() { Pushed::New } else { Pushed::Repaired };
        let mut is_intact = is_same;
        for (digest, size) in ours.outputs.values() {
            if !self.has(digest, *size)? {
                store.check(digest)?;
                self.put(&Record::blob_path(digest), &store.blob_path(digest))?;
                is_intact = false;
            }
        }
        if !is_same {
            let mut file = tempfile::NamedTempFile::new().context("creating a temporary file")?;
            io::Write::write_all(&mut file, ours.bytes()).context("writing a temporary file")?;
            self.put(&Record::path(key), file.path())?;
        } else if is_intact {
            pushed = Pushed::Present;
        }
        Ok(pushed)
    }
}

/// Opens a file, following links. Anything but a regular file is `InvalidData`.
fn open(path: &Path) -> io::Result<File> {
    // Without NONBLOCK, opening a pipe would block until there is a writer.
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidData, "it is not a regular file")),
    }
}

/// Returns the record if its output names are those of its kind of stage.
pub(super) fn checked(record: Record) -> Result<Record> {
    let outputs =
        Preimage::of(&record.action).map_or(Ok(()), |preimage| preimage.check_outputs(&record.action.outputs));
    outputs.map_err(|reason| anyhow!("the record of the key {} is invalid: {reason}", record.key))?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::store::{Action, Cost, Digest};

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("runs")).unwrap();
        (folder, store)
    }

    fn commit(store: &Store) -> (Key, Digest) {
        let preimage = json!({"a": 1});
        let key = Key::of_preimage(&preimage);
        let digest = store.put(b"content").unwrap();
        let outputs = [("out".to_string(), digest.clone())].into();
        store.commit(&key, &Action { preimage, outputs, metrics: BTreeMap::new(), cost: Cost::default() }).unwrap();
        (key, digest)
    }

    #[test]
    fn pushed_results_can_be_fetched() {
        let ((_a, from), (_b, to)) = (store(), store());
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = commit(&from);
        assert!(!remote.fetch(&to, &key).unwrap());
        assert_eq!(remote.push(&from, &key).unwrap(), Pushed::New);
        assert_eq!(remote.push(&from, &key).unwrap(), Pushed::Present);
        assert!(remote.fetch(&to, &key).unwrap());
        assert_eq!(to.action(&key).unwrap(), from.action(&key).unwrap());
        assert_eq!(to.read(&digest).unwrap(), b"content");
        // The folder of another store can serve as a cache.
        let direct = Remote::open(from.runs_dir().join("store").to_str().unwrap()).unwrap();
        assert!(direct.fetch(&store().1, &key).is_ok());
    }

    #[test]
    fn fetched_content_is_verified() {
        let ((_a, from), (_b, to)) = (store(), store());
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = commit(&from);
        remote.push(&from, &key).unwrap();
        let blob = shared.path().join(Record::blob_path(&digest));
        let replace = |path: &Path, bytes: &[u8]| {
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
        };
        replace(&blob, b"CONTENT");
        assert!(format!("{:#}", remote.fetch(&to, &key).unwrap_err()).contains("damaged"));
        fs::remove_file(&blob).unwrap();
        assert!(remote.fetch(&to, &key).unwrap_err().to_string().contains("is missing"));
        let record = shared.path().join(Record::path(&key));
        let text = fs::read_to_string(&record).unwrap();
        replace(&record, text.replace("\"a\": 1", "\"a\": 2").as_bytes());
        assert!(format!("{:#}", remote.fetch(&to, &key).unwrap_err()).contains("does not match its checksum"));
        replace(&record, b"{");
        assert!(remote.fetch(&to, &key).unwrap_err().to_string().contains("damaged"));
        assert_eq!(to.action(&key).unwrap(), None);
    }

    #[test]
    fn damaged_entries_are_replaced() {
        let (_a, from) = store();
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = commit(&from);
        remote.push(&from, &key).unwrap();
        let (blob, record) = (shared.path().join(Record::blob_path(&digest)), shared.path().join(Record::path(&key)));
        let text = fs::read_to_string(&record).unwrap();
        let other = text.replace("\"a\": 1", "\"a\": 2");
        let damages: [(&Path, &[u8]); 7] = [
            (&blob, b"conten"),
            (&blob, b"CONTENT"),
            (&blob, b""),
            (&blob, b"content and more"),
            (&record, b""),
            (&record, b"{"),
            (&record, other.as_bytes()),
        ];
        let works = |what: &str| {
            assert_eq!(remote.push(&from, &key).unwrap(), Pushed::Repaired, "{what}");
            assert_eq!(remote.push(&from, &key).unwrap(), Pushed::Present, "{what}");
            let (_b, to) = store();
            assert!(remote.fetch(&to, &key).unwrap());
            assert_eq!(to.read(&digest).unwrap(), b"content");
        };
        for (path, bytes) in damages {
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
            works(&format!("{} {bytes:?}", path.display()));
        }
        for path in [&blob, &record] {
            fs::remove_file(path).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
            works("a pipe");
        }
    }

    /// A stage on a GPU is not bit-reproducible.
    #[test]
    fn other_outputs_of_the_same_key_are_kept_if_intact() {
        let ((_a, ours), (_b, theirs), (_c, to)) = (store(), store(), store());
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = commit(&ours);
        commit(&theirs);
        let mut action = theirs.action(&key).unwrap().unwrap();
        let other = theirs.put(b"other content").unwrap();
        action.outputs.insert("out".into(), other.clone());
        theirs.commit(&key, &action).unwrap();
        assert_eq!(remote.push(&theirs, &key).unwrap(), Pushed::New);
        assert_eq!(remote.push(&ours, &key).unwrap(), Pushed::Present);
        fs::remove_file(shared.path().join(Record::blob_path(&other))).unwrap();
        assert_eq!(remote.push(&ours, &key).unwrap(), Pushed::Repaired);
        assert!(remote.fetch(&to, &key).unwrap());
        assert_eq!(to.read(&digest).unwrap(), b"content");
    }

    #[test]
    fn permissions_in_a_folder_follow_the_umask() {
        let (_a, from) = store();
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = commit(&from);
        remote.push(&from, &key).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let here = mode(&from.blob_path(&digest));
        for path in [Record::blob_path(&digest), Record::path(&key)] {
            assert_eq!(mode(&shared.path().join(path)), here);
        }
    }

    #[test]
    fn addresses_are_folders_or_buckets() {
        assert!(matches!(Remote::open("some/folder").unwrap(), Remote::Folder(_)));
        assert!(matches!(Remote::open("s3://bucket/a/b/").unwrap(), Remote::S3(_)));
        assert!(Remote::open("http://x").is_err_and(|error| error.is::<InputError>()));
    }
}
