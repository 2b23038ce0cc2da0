//! A cache that several people share: a folder, or a bucket of S3 or of what speaks like it.
//!
//! It holds records and blobs as a store does, under `actions/` and `blobs/`, so that the `store` folder of another
//! `runs` is one. It is read through: before a stage runs, its key is looked up; and nothing that comes from it is
//! believed (see [`Store::adopt_blob`]). Only `push` writes to it, and replaces what is damaged.

mod s3;

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::OFlags;

use super::InputError;
use crate::data::http::BodyError;
use crate::plan::Preimage;
use crate::store::{Digest, Key, MAX_RECORD_BYTES, Record, Store, hash_file};
use s3::S3;

pub enum Remote {
    Folder(PathBuf),
    S3(Box<S3>),
}

/// Why a cache as a whole cannot be used, as opposed to one entry that is damaged.
#[derive(Debug)]
pub struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

impl Unavailable {
    /// Whether an error of a [`Remote`] concerns the whole of it, so that the next request would fail as well.
    pub fn is_cause_of(error: &anyhow::Error) -> bool {
        let lost = |error: &io::Error| error.get_ref().is_some_and(|inner| inner.is::<BodyError>());
        error.is::<Unavailable>() || error.chain().any(|cause| cause.downcast_ref().is_some_and(lost))
    }
}

/// What [`Remote::push`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    New,
    /// It was there, and damaged.
    Repaired,
    /// It was there.
    There,
}

impl Remote {
    /// `s3://BUCKET/PREFIX`, or a folder. Credentials, region and endpoint of S3 come from the variables that its own
    /// tools read.
    pub fn open(address: &str) -> Result<Self> {
        match address.strip_prefix("s3://") {
            Some(rest) => Ok(Self::S3(Box::new(S3::open(rest)?))),
            None => {
                ensure!(
                    !address.contains("://"),
                    InputError(format!("remote {address}: a folder or `s3://…` is needed"))
                );
                Ok(Self::Folder(address.into()))
            }
        }
    }

    /// The content of a file of the cache; None where there is none.
    fn get(&self, path: &Path) -> Result<Option<Box<dyn Read>>> {
        match self {
            Self::Folder(folder) => match open(&folder.join(path)) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                opened => {
                    let file = opened.with_context(|| format!("opening {}", folder.join(path).display()))?;
                    Ok(Some(Box::new(file)))
                }
            },
            Self::S3(s3) => Ok(s3.get(&path.to_string_lossy())?.map(|content| Box::new(content) as _)),
        }
    }

    /// Whether a blob of this digest and size is there. A folder's file is read, of an object only the size is compared.
    fn has(&self, digest: &Digest, size: u64) -> Result<bool> {
        let path = Record::blob_path(digest);
        match self {
            Self::Folder(folder) => {
                let path = folder.join(path);
                let is_whole =
                    |file: File| Ok::<_, io::Error>(file.metadata()?.len() == size && hash_file(&path)? == *digest);
                match open(&path).and_then(is_whole) {
                    Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(false),
                    // Unreadable for its permissions or for a bad disk: it is replaced, if that can be done.
                    found => Ok(found.unwrap_or(false)),
                }
            }
            Self::S3(s3) => Ok(s3.size(&path.to_string_lossy())? == Some(size)),
        }
    }

    /// Puts the content of a file under a path, whole or not at all.
    fn put(&self, path: &Path, from: &Path) -> Result<()> {
        let open = || File::open(from).with_context(|| format!("opening {}", from.display()));
        match self {
            Self::Folder(folder) => {
                let to = folder.join(path);
                let parent = to.parent().unwrap_or(folder);
                fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
                let mut source = open()?;
                let mut copy = || {
                    // Others read it too, as far as the umask lets them.
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

    /// The record of a key; None where there is none. The inner error is what is wrong with it.
    fn record(&self, key: &Key) -> Result<Option<Result<Record>>> {
        let is_no_file =
            |e: &anyhow::Error| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::InvalidData);
        let content = match self.get(&Record::path(key)) {
            Err(e) if is_no_file(&e) => return Ok(Some(Err(e))),
            content => content?,
        };
        let Some(content) = content else { return Ok(None) };
        let mut bytes = vec![];
        content.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).context("reading a record")?;
        Ok(Some(Record::read(key, bytes).and_then(checked)))
    }

    /// Brings what the cache knows of `key` into the store; false where it knows nothing.
    pub fn fetch(&self, store: &Store, key: &Key) -> Result<bool> {
        let Some(record) = self.record(key)?.transpose()? else { return Ok(false) };
        for (name, (digest, size)) in &record.outputs {
            let Some(content) = self.get(&Record::blob_path(digest))? else {
                bail!("it has a record of the key {key}, but not its blob {digest} ({name})");
            };
            store.adopt_blob(digest, *size, content)?;
        }
        store.adopt(&record)?;
        Ok(true)
    }

    /// Copies what is known of `key` to the cache, the record last. What is damaged there is replaced.
    pub fn push(&self, store: &Store, key: &Key) -> Result<Pushed> {
        let ours = store.record_of(key)?.with_context(|| format!("the key {key} is not known any more"))?;
        let theirs = self.record(key)?;
        // A stage that is not the same to the last bit can have other outputs there, which are as good.
        if let Some(Ok(theirs)) = &theirs
            && theirs.outputs != ours.outputs
            && theirs.outputs.values().map(|(digest, size)| self.has(digest, *size)).all(|has| has.unwrap_or(false))
        {
            return Ok(Pushed::There);
        }
        let is_same = matches!(&theirs, Some(Ok(theirs)) if theirs.outputs == ours.outputs);
        let mut pushed = if theirs.is_none() { Pushed::New } else { Pushed::Repaired };
        let mut is_whole = is_same;
        for (digest, size) in ours.outputs.values() {
            if !self.has(digest, *size)? {
                store.check(digest)?;
                self.put(&Record::blob_path(digest), &store.blob_path(digest))?;
                is_whole = false;
            }
        }
        if !is_same {
            let mut file = tempfile::NamedTempFile::new().context("making a temporary file")?;
            io::Write::write_all(&mut file, ours.bytes()).context("writing a temporary file")?;
            self.put(&Record::path(key), file.path())?;
        } else if is_whole {
            pushed = Pushed::There;
        }
        Ok(pushed)
    }
}

/// Opens a file of a folder; links are followed, and what is no file in the end is refused as invalid data.
fn open(path: &Path) -> io::Result<File> {
    // Without NONBLOCK, opening a pipe waits for somebody to write to it.
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidData, "it is no regular file")),
    }
}

/// The record, if its outputs are those that its kind of stage makes.
pub fn checked(record: Record) -> Result<Record> {
    let outputs =
        Preimage::of(&record.action).map_or(Ok(()), |preimage| preimage.check_outputs(&record.action.outputs));
    outputs.map_err(|reason| anyhow!("the record of the key {} is wrong: {reason}", record.key))?;
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

    fn know(store: &Store) -> (Key, Digest) {
        let preimage = json!({"a": 1});
        let key = Key::of_preimage(&preimage);
        let digest = store.put(b"content").unwrap();
        let outputs = [("out".to_string(), digest.clone())].into();
        store.commit(&key, &Action { preimage, outputs, metrics: BTreeMap::new(), cost: Cost::default() }).unwrap();
        (key, digest)
    }

    #[test]
    fn a_folder_is_pushed_to_and_read_through() {
        let ((_a, from), (_b, to)) = (store(), store());
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = know(&from);
        assert!(!remote.fetch(&to, &key).unwrap());
        assert_eq!(remote.push(&from, &key).unwrap(), Pushed::New);
        assert_eq!(remote.push(&from, &key).unwrap(), Pushed::There);
        assert!(remote.fetch(&to, &key).unwrap());
        assert_eq!(to.action(&key).unwrap(), from.action(&key).unwrap());
        assert_eq!(to.read(&digest).unwrap(), b"content");
        // The folder of another store is one, too.
        let direct = Remote::open(from.runs_dir().join("store").to_str().unwrap()).unwrap();
        assert!(direct.fetch(&store().1, &key).is_ok());
    }

    #[test]
    fn what_a_remote_says_is_checked() {
        let ((_a, from), (_b, to)) = (store(), store());
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = know(&from);
        remote.push(&from, &key).unwrap();
        let blob = shared.path().join(Record::blob_path(&digest));
        let replace = |path: &Path, bytes: &[u8]| {
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
        };
        replace(&blob, b"CONTENT");
        assert!(format!("{:#}", remote.fetch(&to, &key).unwrap_err()).contains("damaged"));
        fs::remove_file(&blob).unwrap();
        assert!(remote.fetch(&to, &key).unwrap_err().to_string().contains("not its blob"));
        let record = shared.path().join(Record::path(&key));
        let text = fs::read_to_string(&record).unwrap();
        replace(&record, text.replace("\"a\": 1", "\"a\": 2").as_bytes());
        assert!(format!("{:#}", remote.fetch(&to, &key).unwrap_err()).contains("does not match its checksum"));
        replace(&record, b"{");
        assert!(remote.fetch(&to, &key).unwrap_err().to_string().contains("damaged"));
        assert_eq!(to.action(&key).unwrap(), None);
    }

    #[test]
    fn what_is_damaged_is_replaced() {
        let (_a, from) = store();
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = know(&from);
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
            assert_eq!(remote.push(&from, &key).unwrap(), Pushed::There, "{what}");
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

    /// A stage on a GPU is not the same to the last bit.
    #[test]
    fn other_outputs_of_the_same_key_are_as_good_if_they_are_whole() {
        let ((_a, ours), (_b, theirs), (_c, to)) = (store(), store(), store());
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = know(&ours);
        know(&theirs);
        let mut action = theirs.action(&key).unwrap().unwrap();
        let other = theirs.put(b"other content").unwrap();
        action.outputs.insert("out".into(), other.clone());
        theirs.commit(&key, &action).unwrap();
        assert_eq!(remote.push(&theirs, &key).unwrap(), Pushed::New);
        assert_eq!(remote.push(&ours, &key).unwrap(), Pushed::There);
        fs::remove_file(shared.path().join(Record::blob_path(&other))).unwrap();
        assert_eq!(remote.push(&ours, &key).unwrap(), Pushed::Repaired);
        assert!(remote.fetch(&to, &key).unwrap());
        assert_eq!(to.read(&digest).unwrap(), b"content");
    }

    #[test]
    fn files_of_a_folder_are_as_open_as_the_umask_says() {
        let (_a, from) = store();
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = know(&from);
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
