//! Imports results from outside the store.
//!
//! An archive or a shared cache supplies records of actions and blobs. Foreign records are verified as strictly as our
//! own, and blobs are hashed as they arrive. As everywhere, the record is written after its blobs.

use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::actions::SizedArtifact;
use super::digest::Hasher;
use super::files::{self, Durability};
use super::{Action, Digest, Key, Store};

/// The maximum size of a foreign record. A parsed record can take about twenty times as much memory.
pub const MAX_RECORD_BYTES: u64 = 16 << 20;

/// A valid record of an action in another store, whose blobs may be missing here.
#[derive(Debug, Clone)]
pub struct Record {
    pub key: Key,
    pub action: Action,
    /// The outputs of `action` with their sizes.
    pub outputs: SizedArtifact,
    bytes: Vec<u8>,
}

impl Store {
    /// Returns the record of a cached key for export; None if the key is not cached.
    pub fn export_record(&self, key: &Key) -> Result<Option<Record>> {
        if self.action(key)?.is_none() {
            return Ok(None);
        }
        let path = self.action_path(key);
        Record::parse(key, self.read_record(&path).with_context(|| format!("reading {}", path.display()))?).map(Some)
    }

    /// Stores a foreign blob after verifying its digest and size.
    pub fn import_blob(&self, digest: &Digest, size: u64, content: impl Read) -> Result<()> {
        let _guard = self.guard()?;
        self.add_to_lease(digest)?;
        if self.is_intact(digest, size) {
            return Ok(());
        }
        let path = self.blob_path(digest);
        let mut file = self.temporary(files::parent_folder(&path))?;
        let (mut hasher, mut buffer, mut length) = (Hasher::default(), vec![0; 1 << 18], 0);
        // Read one extra byte, to detect content that is too long.
        let mut content = content.take(size.saturating_add(1));
        loop {
            let n = match content.read(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                read => read.with_context(|| format!("reading the blob {digest}"))?,
            };
            if n == 0 {
                break;
            }
            length += n as u64;
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).with_context(|| format!("writing {}", path.display()))?;
        }
        ensure!(length == size, "the blob {digest} does not have the {size} bytes that its record states");
        let found = hasher.finish();
        ensure!(found == *digest, "the blob {digest} is damaged: its content has the SHA-256 {found}");
        super::blobs::publish_blob(file, &path)
    }

    /// Adds a foreign record whose blobs are in the store. Does nothing if the key is already cached.
    pub fn import_record(&self, record: &Record) -> Result<()> {
        let _guard = self.guard()?;
        if self.action(&record.key)?.is_some() {
            return Ok(());
        }
        for (name, (digest, size)) in &record.outputs {
            ensure!(self.is_intact(digest, *size), "the blob {digest} ({name}) is missing");
        }
        self.write_file(&self.action_path(&record.key), &record.bytes, Durability::Synced)
    }
}

impl Record {
    /// Parses and verifies the record of `key`.
    pub fn parse(key: &Key, bytes: Vec<u8>) -> Result<Self> {
        let (action, outputs) =
            super::actions::parse(key, &bytes).with_context(|| format!("the record of the key {key} is damaged"))?;
        Ok(Self { key: key.clone(), action, outputs, bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the path of a record, relative to the folder of any store.
    pub fn path(key: &Key) -> PathBuf {
        PathBuf::from("actions").join(key.shard()).join(format!("{key}.json"))
    }

    /// Returns the path of a blob, relative to the folder of any store.
    pub fn blob_path(digest: &Digest) -> PathBuf {
        PathBuf::from("blobs").join(digest.shard()).join(digest.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, action, store, temporaries};
    use super::*;

    #[test]
    fn results_can_be_copied_between_stores() {
        let ((_one, from), (_two, to)) = (store(), store());
        let key = testing::key("key");
        from.commit(&key, &action(&from, "key", &[("a", b"content")])).unwrap();
        let record = from.export_record(&key).unwrap().unwrap();
        assert!(to.import_record(&record).is_err(), "its blob is missing");
        let digest = Digest::of(b"content");
        to.import_blob(&digest, 7, &b"content"[..]).unwrap();
        to.import_record(&record).unwrap();
        assert_eq!(to.action(&key).unwrap(), from.action(&key).unwrap());
        assert!(from.export_record(&Key::of(b"other")).unwrap().is_none());
    }

    #[test]
    fn invalid_records_and_blobs_are_refused() {
        let (_folder, store) = store();
        let digest = Digest::of(b"content");
        for (size, content) in [(7, &b"CONTENT"[..]), (7, b"conten"), (7, b"content and more"), (6, b"content")] {
            assert!(store.import_blob(&digest, size, content).is_err());
        }
        assert!(store.check(&digest).is_err());
        assert_eq!(temporaries(&store), 0);
        assert!(Record::parse(&Key::of(b"key"), b"{}".to_vec()).is_err());
    }
}
