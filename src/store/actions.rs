//! Actions: what is known of a key. The one file whose appearance says that a stage is done.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::files::{self, Durability};
use super::{Action, Artifact, Cost, Digest, Key, Store, numbers};

/// An action's file. It says its own key, and each blob's size so that a truncated one is noticed without reading it.
#[derive(Serialize, Deserialize)]
struct File {
    key: Key,
    preimage: serde_json::Value,
    outputs: BTreeMap<String, Output>,
    #[serde(with = "numbers")]
    metrics: BTreeMap<String, f64>,
    cost: Cost,
}

#[derive(Serialize, Deserialize)]
struct Output {
    digest: Digest,
    size: u64,
}

impl From<File> for Action {
    fn from(file: File) -> Self {
        let outputs = file.outputs.into_iter().map(|(name, output)| (name, output.digest)).collect();
        Self { preimage: file.preimage, outputs, metrics: file.metrics, cost: file.cost }
    }
}

impl Store {
    pub(super) fn action_path(&self, key: &Key) -> PathBuf {
        self.folder("actions").join(key.shard()).join(format!("{key}.json"))
    }

    /// What is known of `key`. None where nothing is, where the record is garbled, or where one of its blobs is missing
    /// or has another size: running the stage again heals all three. An error where the store cannot be read at all.
    pub fn action(&self, key: &Key) -> Result<Option<Action>> {
        let Some(file) = self.action_file(key)? else { return Ok(None) };
        if !file.outputs.values().all(|output| self.is_whole(&output.digest, output.size)) {
            return Ok(None);
        }
        Ok(Some(file.into()))
    }

    /// The outputs that an action names, whether or not its blobs are there; None where it is garbled.
    pub(super) fn recorded_outputs(&self, key: &Key) -> Result<Option<Artifact>> {
        Ok(self.action_file(key)?.map(|file| Action::from(file).outputs))
    }

    fn action_file(&self, key: &Key) -> Result<Option<File>> {
        let path = self.action_path(key);
        let mut bytes = vec![];
        match files::open(&path).and_then(|(mut file, _)| file.read_to_end(&mut bytes)) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => return Ok(None),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        Ok(read(key, &bytes))
    }

    /// Every action on record, whether its blobs are there or not. What cannot be read is passed over: these are for
    /// questions about what was made, not for results.
    pub fn recorded(&self) -> Vec<(Key, Action)> {
        let folders = fs::read_dir(self.folder("actions")).into_iter().flatten().flatten();
        let files = folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten();
        let action = |path: PathBuf| {
            let key: Key = path.file_stem()?.to_str()?.parse().ok()?;
            let action = self.action_file(&key).ok()??.into();
            Some((key, action))
        };
        let mut actions: Vec<_> = files.filter_map(|file| action(file.path())).collect();
        // Folders list their files in any order.
        actions.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        actions
    }

    /// Records that `key` is known: the commit point. The action's blobs must be in the store.
    pub fn commit(&self, key: &Key, action: &Action) -> Result<()> {
        let _hold = self.hold()?;
        let mut outputs = BTreeMap::new();
        for (name, digest) in &action.outputs {
            files::check_name("blob", name)?;
            let size = self.size(digest).with_context(|| format!("recording the output {name}"))?;
            outputs.insert(name.clone(), Output { digest: digest.clone(), size });
        }
        let file = File {
            key: key.clone(),
            preimage: action.preimage.clone(),
            outputs,
            metrics: action.metrics.clone(),
            cost: action.cost.clone(),
        };
        let mut json = serde_json::to_vec_pretty(&file).context("writing an action as JSON")?;
        json.push(b'\n');
        files::write(&self.action_path(key), &json, Durability::Synced)
    }

    /// Makes `key` unknown, for example because a blob proved damaged; nothing happens where it is.
    pub fn forget(&self, key: &Key) -> Result<()> {
        let path = self.action_path(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("removing {}", path.display())),
        }
    }
}

/// The record of `key` in an action's file, if it is one.
fn read(key: &Key, bytes: &[u8]) -> Option<File> {
    let file = serde_json::from_slice::<File>(bytes).ok()?;
    let names = file.outputs.keys().all(|name| files::check_name("blob", name).is_ok());
    (file.key == *key && names).then_some(file)
}

/// Blobs by name, with their lengths.
pub type SizedArtifact = BTreeMap<String, (Digest, u64)>;

/// The preimage and the outputs in an action's file from elsewhere.
pub(super) fn parse(key: &Key, bytes: &[u8]) -> Option<(serde_json::Value, SizedArtifact)> {
    let file = read(key, bytes)?;
    let outputs = file.outputs.into_iter().map(|(name, output)| (name, (output.digest, output.size)));
    Some((file.preimage, outputs.collect()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::testing::{action, damage, store, temporaries};

    fn key() -> Key {
        Key::of(b"a preimage")
    }

    #[test]
    fn what_is_committed_is_known() {
        let (_folder, store) = store();
        assert_eq!(store.action(&key()).unwrap(), None);
        let made = action(&store, &[("weights.safetensors", b"123"), ("loss.csv", b"")]);
        store.commit(&key(), &made).unwrap();
        assert_eq!(store.action(&key()).unwrap(), Some(made));
        assert_eq!(store.action(&Key::of(b"another")).unwrap(), None);
        assert_eq!(temporaries(&store), 0);
    }

    #[test]
    fn a_later_commit_replaces_an_earlier() {
        let (_folder, store) = store();
        store.commit(&key(), &action(&store, &[("a", b"1")])).unwrap();
        let later = action(&store, &[("a", b"2")]);
        store.commit(&key(), &later).unwrap();
        assert_eq!(store.action(&key()).unwrap(), Some(later));
    }

    #[test]
    fn nothing_is_committed_without_its_blobs() {
        let (_folder, store) = store();
        let mut made = action(&store, &[("a", b"1")]);
        made.outputs.insert("b".to_string(), Digest::of(b"never put"));
        let error = format!("{:#}", store.commit(&key(), &made).unwrap_err());
        assert!(error.starts_with("recording the output b: ") && error.contains("missing"), "{error}");
        made.outputs = [("../b".to_string(), store.put(b"2").unwrap())].into();
        assert!(store.commit(&key(), &made).is_err());
        assert!(!store.action_path(&key()).exists());
    }

    #[test]
    fn what_was_made_is_told_although_a_blob_is_gone() {
        let (_folder, store) = store();
        assert!(store.recorded().is_empty());
        let made = action(&store, &[("a", b"1")]);
        store.commit(&key(), &made).unwrap();
        fs::remove_file(store.blob_path(&made.outputs["a"])).unwrap();
        fs::write(store.folder("actions").join(key().shard()).join("note.json"), b"{}").unwrap();
        assert_eq!(store.recorded(), [(key(), made)]);
        assert_eq!(store.action(&key()).unwrap(), None);
    }

    #[test]
    fn a_garbled_record_is_none() {
        let (_folder, store) = store();
        let made = action(&store, &[("a", b"1")]);
        store.commit(&key(), &made).unwrap();
        let path = store.action_path(&key());
        let record = fs::read(&path).unwrap();
        // The last byte is a line end, which JSON can do without.
        for length in 0..record.len() - 1 {
            damage(&path, &record[..length]);
            assert_eq!(store.action(&key()).unwrap(), None, "cut to {length} bytes");
        }
        let text = String::from_utf8(record).unwrap();
        let digest = Digest::of(b"1");
        let garbled = [
            text.replace(key().as_str(), Key::of(b"another").as_str()),
            text.replace(digest.as_str(), "../../outside"),
            text.replace("\"a\"", "\"../a\""),
            text.replace("\"size\": 1", "\"size\": -1"),
            "null".to_string(),
        ];
        for text in garbled {
            damage(&path, text.as_bytes());
            assert_eq!(store.action(&key()).unwrap(), None, "{text}");
        }
        damage(&path, &[0xff; 100]);
        assert_eq!(store.action(&key()).unwrap(), None);
        store.commit(&key(), &made).unwrap();
        assert_eq!(store.action(&key()).unwrap(), Some(made));
    }

    #[test]
    fn an_action_whose_blob_is_gone_or_truncated_is_none() {
        let (_folder, store) = store();
        let made = action(&store, &[("a", b"1"), ("b", b"content")]);
        store.commit(&key(), &made).unwrap();
        let blob = store.blob_path(&made.outputs["b"]);
        for damaged in [&b"cont"[..], b"", b"content and more"] {
            damage(&blob, damaged);
            assert_eq!(store.action(&key()).unwrap(), None);
            store.put(b"content").unwrap();
            assert_eq!(store.action(&key()).unwrap().as_ref(), Some(&made));
        }
        fs::remove_file(&blob).unwrap();
        assert_eq!(store.action(&key()).unwrap(), None);
    }

    #[test]
    fn a_link_is_no_action() {
        let (folder, store) = store();
        let made = action(&store, &[("a", b"1")]);
        store.commit(&key(), &made).unwrap();
        let (path, outside) = (store.action_path(&key()), folder.path().join("outside"));
        fs::rename(&path, &outside).unwrap();
        symlink(&outside, &path).unwrap();
        assert_eq!(store.action(&key()).unwrap(), None);
        let record = fs::read(&outside).unwrap();
        store.commit(&key(), &action(&store, &[("a", b"2")])).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), record, "the file outside is left alone");
    }

    #[test]
    fn what_was_forgotten_is_unknown() {
        let (_folder, store) = store();
        store.forget(&key()).unwrap();
        store.commit(&key(), &action(&store, &[])).unwrap();
        store.forget(&key()).unwrap();
        assert_eq!(store.action(&key()).unwrap(), None);
    }

    #[test]
    fn a_store_that_cannot_be_read_is_an_error() {
        let (folder, store) = store();
        fs::write(folder.path().join("runs/store/actions"), b"").unwrap();
        let error = format!("{:#}", store.action(&key()).unwrap_err());
        assert!(error.starts_with("reading ") && error.contains(key().as_str()), "{error}");
    }
}
