//! Actions: what is known of a key. The one file whose appearance says that a stage is done.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Action, Cost, Digest, Key, Store, files, numbers};

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

impl Store {
    fn action_path(&self, key: &Key) -> PathBuf {
        self.folder("actions").join(key.shard()).join(format!("{key}.json"))
    }

    /// What is known of `key`. None where nothing is, where the record is garbled, or where one of its blobs is missing
    /// or has another size: running the stage again heals all three. An error where the store cannot be read at all.
    pub fn action(&self, key: &Key) -> Result<Option<Action>> {
        let path = self.action_path(key);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let Ok(file) = serde_json::from_slice::<File>(&bytes) else { return Ok(None) };
        let whole = |(name, output): (&String, &Output)| {
            files::check_name("blob", name).is_ok() && self.size(&output.digest).is_ok_and(|size| size == output.size)
        };
        if file.key != *key || !file.outputs.iter().all(whole) {
            return Ok(None);
        }
        let outputs = file.outputs.into_iter().map(|(name, output)| (name, output.digest)).collect();
        Ok(Some(Action { preimage: file.preimage, outputs, metrics: file.metrics, cost: file.cost }))
    }

    /// Records that `key` is known: the commit point. The action's blobs must be in the store.
    pub fn commit(&self, key: &Key, action: &Action) -> Result<()> {
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
        files::write(&self.action_path(key), &json)
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
