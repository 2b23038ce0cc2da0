//! Action records, one per key. Writing the record commits the result.
//!
//! A record is valid if its checksum matches, its key is the hash of its preimage, and its output names are valid file
//! names. An invalid record is treated as absent, so the stage runs again.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::files::{self, Durability};
use super::seal::{Damage, Seal, seal_pretty, unseal};
use super::{Action, Cost, Digest, Key, Store};
use crate::store::json_float;

/// The content of a record file. The sizes reveal truncated blobs without reading them.
#[derive(Serialize, Deserialize)]
struct RecordFile {
    key: Key,
    preimage: serde_json::Value,
    outputs: BTreeMap<String, Output>,
    #[serde(with = "json_float")]
    metrics: BTreeMap<String, f64>,
    cost: Cost,
}

#[derive(Serialize, Deserialize)]
struct Output {
    digest: Digest,
    size: u64,
}

impl From<RecordFile> for Action {
    fn from(file: RecordFile) -> Self {
        let outputs = file.outputs.into_iter().map(|(name, output)| (name, output.digest)).collect();
        Self { preimage: file.preimage, outputs, metrics: file.metrics, cost: file.cost }
    }
}

impl Store {
    pub(super) fn action_path(&self, key: &Key) -> PathBuf {
        self.folder("actions").join(key.shard()).join(format!("{key}.json"))
    }

    /// Returns the action of `key`. None if the record is absent or invalid, or if a blob is missing or has another
    /// size: running the stage again repairs all of these. Fails if the store cannot be read.
    pub fn action(&self, key: &Key) -> Result<Option<Action>> {
        let Some(Ok(file)) = self.action_file(key)? else { return Ok(None) };
        if !file.outputs.values().all(|output| self.is_intact(&output.digest, output.size)) {
            return Ok(None);
        }
        Ok(Some(file.into()))
    }

    /// Returns the recorded action, whether or not its blobs are in the store. None if there is no record.
    pub(super) fn recorded_action(&self, key: &Key) -> Result<Option<Result<Action, Damage>>> {
        Ok(self.action_file(key)?.map(|file| file.map(Action::from)))
    }

    fn action_file(&self, key: &Key) -> Result<Option<Result<RecordFile, Damage>>> {
        let path = self.action_path(key);
        match self.read_record(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == ErrorKind::InvalidData => Ok(Some(Err(Damage::new(e.to_string())))),
            bytes => Ok(Some(parse_file(key, &bytes.with_context(|| format!("reading {}", path.display()))?))),
        }
    }

    /// Adds a checksum to a valid record of an older version. Returns whether it added one.
    pub(super) fn seal_record(&self, key: &Key) -> Result<bool> {
        let path = self.action_path(key);
        let bytes = self.read_record(&path).with_context(|| format!("reading {}", path.display()))?;
        let Ok((file, Seal::None)) = unseal::<RecordFile>(&bytes) else { return Ok(false) };
        let json = seal_pretty(&file).context("writing an action as JSON")?;
        self.write_file(&path, &json, Durability::Synced)?;
        Ok(true)
    }

    /// Returns every valid record, whether or not its blobs are in the store. Skips invalid ones. Only for queries
    /// about past runs; [`Store::action`] looks up a result.
    pub fn recorded(&self) -> Vec<(Key, Action)> {
        let mut keys = self.action_keys();
        // Directories list their files in any order.
        keys.sort_unstable();
        let action = |key: Key| {
            let action = self.recorded_action(&key).ok()??.ok()?;
            Some((key, action))
        };
        keys.into_iter().filter_map(action).collect()
    }

    /// Writes the record of `key`, which is the commit point. The action's blobs must be in the store, and `key` must
    /// be the hash of its preimage.
    pub fn commit(&self, key: &Key, action: &Action) -> Result<()> {
        let _guard = self.guard()?;
        ensure!(Key::of_preimage(&action.preimage) == *key, "the preimage does not hash to the key {key}");
        let mut outputs = BTreeMap::new();
        for (name, digest) in &action.outputs {
            files::check_name("blob", name)?;
            let size = self.size(digest).with_context(|| format!("recording the output {name}"))?;
            outputs.insert(name.clone(), Output { digest: digest.clone(), size });
        }
        let file = RecordFile {
            key: key.clone(),
            preimage: action.preimage.clone(),
            outputs,
            metrics: action.metrics.clone(),
            cost: action.cost.clone(),
        };
        let json = seal_pretty(&file).context("writing an action as JSON")?;
        self.write_file(&self.action_path(key), &json, Durability::Synced)
    }

    /// Removes the record of `key`, for example because a blob is damaged. Does nothing if there is none.
    pub fn remove_action(&self, key: &Key) -> Result<()> {
        let path = self.action_path(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("removing {}", path.display())),
        }
    }
}

/// Parses and verifies the record of `key`.
fn parse_file(key: &Key, bytes: &[u8]) -> Result<RecordFile, Damage> {
    let (file, seal): (RecordFile, Seal) = unseal(bytes)?;
    if seal == Seal::None && !super::predates_seals(&file.cost.srpipe_version) {
        return Err(Damage::new("the checksum is missing"));
    }
    if file.key != *key {
        return Err(Damage::new(format!("it is the record of another key, {}", file.key)));
    }
    let hash = Key::of_preimage(&file.preimage);
    if hash != *key {
        return Err(Damage::new(format!("its preimage hashes to another key, {hash}")));
    }
    if let Some(error) = file.outputs.keys().find_map(|name| files::check_name("blob", name).err()) {
        return Err(Damage::new(error.to_string()));
    }
    Ok(file)
}

/// Blobs by name, with their sizes in bytes.
pub(super) type SizedArtifact = BTreeMap<String, (Digest, u64)>;

/// Parses and verifies the record of `key`. Returns the action, and its outputs with their sizes.
pub(super) fn parse(key: &Key, bytes: &[u8]) -> Result<(Action, SizedArtifact), Damage> {
    let file = parse_file(key, bytes)?;
    let outputs = file.outputs.iter().map(|(name, output)| (name.clone(), (output.digest.clone(), output.size)));
    let outputs = outputs.collect();
    Ok((file.into(), outputs))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::testing::{self, damage, store, temporaries};

    fn key() -> Key {
        testing::key("key")
    }

    fn action(store: &Store, outputs: &[(&str, &[u8])]) -> Action {
        testing::action(store, "key", outputs)
    }

    #[test]
    fn committed_actions_are_found() {
        let (_folder, store) = store();
        assert_eq!(store.action(&key()).unwrap(), None);
        let committed = action(&store, &[("weights.safetensors", b"123"), ("loss.csv", b"")]);
        store.commit(&key(), &committed).unwrap();
        assert_eq!(store.action(&key()).unwrap(), Some(committed));
        assert_eq!(store.action(&Key::of(b"another")).unwrap(), None);
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn a_later_commit_replaces_an_earlier_one() {
        let (_folder, store) = store();
        store.commit(&key(), &action(&store, &[("a", b"1")])).unwrap();
        let later = action(&store, &[("a", b"2")]);
        store.commit(&key(), &later).unwrap();
        assert_eq!(store.action(&key()).unwrap(), Some(later));
    }

    #[test]
    fn committing_fails_without_the_blobs() {
        let (_folder, store) = store();
        let mut committed = action(&store, &[("a", b"1")]);
        committed.outputs.insert("b".to_string(), Digest::of(b"never put"));
        let error = format!("{:#}", store.commit(&key(), &committed).unwrap_err());
        assert!(error.starts_with("recording the output b: ") && error.contains("missing"), "{error}");
        committed.outputs = [("../b".to_string(), store.put(b"2").unwrap())].into();
        assert!(store.commit(&key(), &committed).is_err());
        assert!(!store.action_path(&key()).exists());
    }

    #[test]
    fn recorded_actions_include_those_with_missing_blobs() {
        let (_folder, store) = store();
        assert!(store.recorded().is_empty());
        let committed = action(&store, &[("a", b"1")]);
        store.commit(&key(), &committed).unwrap();
        fs::remove_file(store.blob_path(&committed.outputs["a"])).unwrap();
        fs::write(store.folder("actions").join(key().shard()).join("note.json"), b"{}").unwrap();
        assert_eq!(store.recorded(), [(key(), committed)]);
        assert_eq!(store.action(&key()).unwrap(), None);
    }

    #[test]
    fn invalid_records_are_ignored() {
        let (_folder, store) = store();
        let committed = action(&store, &[("a", b"1")]);
        store.commit(&key(), &committed).unwrap();
        let path = store.action_path(&key());
        let record = fs::read(&path).unwrap();
        // Without the final line feed, the record is still valid.
        for length in 0..record.len() - 1 {
            damage(&path, &record[..length]);
            assert_eq!(store.action(&key()).unwrap(), None, "cut to {length} bytes");
        }
        let text = String::from_utf8(record).unwrap();
        let digest = Digest::of(b"1");
        let invalid = [
            text.replace(key().as_str(), Key::of(b"another").as_str()),
            text.replace(digest.as_str(), "../../outside"),
            text.replace("\"a\"", "\"../a\""),
            text.replace("\"size\": 1", "\"size\": -1"),
            "null".to_string(),
        ];
        for text in invalid {
            damage(&path, text.as_bytes());
            assert_eq!(store.action(&key()).unwrap(), None, "{text}");
        }
        damage(&path, &[0xff; 100]);
        assert_eq!(store.action(&key()).unwrap(), None);
        store.commit(&key(), &committed).unwrap();
        assert_eq!(store.action(&key()).unwrap(), Some(committed));
    }

    #[test]
    fn actions_with_missing_or_truncated_blobs_are_ignored() {
        let (_folder, store) = store();
        let committed = action(&store, &[("a", b"1"), ("b", b"content")]);
        store.commit(&key(), &committed).unwrap();
        let blob = store.blob_path(&committed.outputs["b"]);
        for damaged in [&b"cont"[..], b"", b"content and more"] {
            damage(&blob, damaged);
            assert_eq!(store.action(&key()).unwrap(), None);
            store.put(b"content").unwrap();
            assert_eq!(store.action(&key()).unwrap().as_ref(), Some(&committed));
        }
        fs::remove_file(&blob).unwrap();
        assert_eq!(store.action(&key()).unwrap(), None);
    }

    #[test]
    fn links_are_not_followed() {
        let (folder, store) = store();
        let committed = action(&store, &[("a", b"1")]);
        store.commit(&key(), &committed).unwrap();
        let (path, outside) = (store.action_path(&key()), folder.path().join("outside"));
        fs::rename(&path, &outside).unwrap();
        symlink(&outside, &path).unwrap();
        assert_eq!(store.action(&key()).unwrap(), None);
        let record = fs::read(&outside).unwrap();
        store.commit(&key(), &action(&store, &[("a", b"2")])).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), record, "the file outside is left alone");
    }

    #[test]
    fn removed_actions_are_not_found() {
        let (_folder, store) = store();
        store.remove_action(&key()).unwrap();
        store.commit(&key(), &action(&store, &[])).unwrap();
        store.remove_action(&key()).unwrap();
        assert_eq!(store.action(&key()).unwrap(), None);
    }

    #[test]
    fn an_unreadable_store_is_an_error() {
        let (folder, store) = store();
        fs::write(folder.path().join("runs/store/actions"), b"").unwrap();
        let error = format!("{:#}", store.action(&key()).unwrap_err());
        assert!(error.starts_with("reading ") && error.contains(key().as_str()), "{error}");
    }
}
