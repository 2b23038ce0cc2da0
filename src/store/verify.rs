//! Verifies every record and blob in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;

use super::{Action, Digest, Key, ReadError, Store};

/// How much the store contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Contents {
    pub results: usize,
    pub blobs: usize,
    pub bytes: u64,
    /// Keys with unfinished work.
    pub unfinished: usize,
}

/// A damaged or incomplete result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum Problem {
    /// The record is invalid.
    #[serde(rename = "garbled")]
    InvalidRecord {
        key: Key,
        reason: String,
    },
    /// The content of a blob does not match its name.
    Damaged {
        key: Key,
        output: String,
        digest: Digest,
    },
    Missing {
        key: Key,
        output: String,
        digest: Digest,
    },
}

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    pub contents: Contents,
    pub problems: Vec<Problem>,
    /// Blobs that belong to no result; `gc` removes them.
    pub unreferenced: usize,
    /// Records of an older version, to which a checksum was added.
    pub sealed: usize,
    /// Files outside the store whose cached digests were wrong. These were removed from the cache.
    pub wrong_hashes: Vec<PathBuf>,
    /// Descriptions of the damaged records and pipelines of runs; filled in by `runs`.
    pub damaged_runs: Vec<String>,
}

impl Verified {
    /// Whether nothing is damaged.
    pub fn is_intact(&self) -> bool {
        self.problems.is_empty() && self.wrong_hashes.is_empty() && self.damaged_runs.is_empty()
    }
}

impl Store {
    /// Counts the items in the store without reading blobs.
    pub fn contents(&self) -> Contents {
        let sizes = self.blob_sizes();
        Contents {
            results: self.action_keys().len(),
            blobs: sizes.len(),
            bytes: sizes.values().sum(),
            unfinished: self.work_keys().len(),
        }
    }

    /// Reads every record and every blob, and hashes the files of the stat cache again. Marks damaged blobs, so that
    /// the next run that needs them recomputes them, removes wrong entries of the stat cache, and adds checksums to
    /// records of an older version. Waits while `gc` runs. `check` returns an error for an action that is invalid
    /// although its record is intact.
    pub fn verify(&self, check: impl Fn(&Action) -> Result<(), String>) -> Result<Verified> {
        // Prevent `gc` from removing blobs before they are read.
        let _guard = self.guard()?;
        self.check_no_links()?;
        let mut verified = Verified { contents: self.contents(), ..Verified::default() };
        verified.wrong_hashes = self.verify_stat_cache();
        let mut checked: BTreeMap<Digest, Option<ReadError>> = BTreeMap::new();
        for key in self.action_keys() {
            let outputs = match self.recorded_action(&key)? {
                Some(Ok(action)) => match check(&action) {
                    Ok(()) => action.outputs,
                    Err(reason) => {
                        verified.problems.push(Problem::InvalidRecord { key, reason });
                        continue;
                    }
                },
                Some(Err(damage)) => {
                    verified.problems.push(Problem::InvalidRecord { key, reason: damage.to_string() });
                    continue;
                }
                // Another process has just removed it.
                None => continue,
            };
            // Without write access, the record stays unsealed.
            verified.sealed += usize::from(self.seal_record(&key).unwrap_or(false));
            for (output, digest) in outputs {
                let result = checked.entry(digest.clone()).or_insert_with(|| self.check(&digest).err());
                verified.problems.extend(result.as_ref().map(|error| match error {
                    ReadError::Missing { .. } => Problem::Missing { key: key.clone(), output, digest },
                    ReadError::Corrupt { .. } | ReadError::Io { .. } => {
                        self.mark_modified(&digest);
                        Problem::Damaged { key: key.clone(), output, digest }
                    }
                }));
            }
        }
        let referenced: BTreeSet<&Digest> = checked.keys().collect();
        verified.unreferenced = self.blob_sizes().keys().filter(|digest| !referenced.contains(digest)).count();
        verified.problems.sort();
        Ok(verified)
    }

    /// Whether `key` has an invalid record.
    pub fn has_invalid_record(&self, key: &Key) -> bool {
        matches!(self.recorded_action(key), Ok(Some(Err(_))) | Err(_))
    }

    /// Returns why the recorded result of `key` cannot be used; None if there is no record or no problem.
    pub fn problem(&self, key: &Key) -> Option<String> {
        let outputs = match self.recorded_action(key) {
            Ok(None) => return None,
            Ok(Some(Ok(action))) => action.outputs,
            Ok(Some(Err(damage))) => return Some(format!("its record is damaged: {damage}")),
            Err(error) => return Some(format!("its record cannot be read: {error:#}")),
        };
        if self.action(key).is_ok_and(|action| action.is_some()) {
            return None;
        }
        let wrong = outputs.iter().find_map(|(name, digest)| Some((name, digest, self.check(digest).err()?)));
        Some(match wrong {
            Some((name, digest, ReadError::Missing { .. })) => format!("{name} is missing (blob {digest})"),
            Some((name, digest, _)) => format!("{name} is damaged (blob {digest})"),
            None => "the sizes in its record differ from those of its blobs".to_string(),
        })
    }

    /// Marks a blob as modified, so that it is verified before its next use; see [`Store::is_intact`].
    fn mark_modified(&self, digest: &Digest) {
        // If this fails, the damage is detected when the blob is read.
        let _ = self.open_file(&self.blob_path(digest)).and_then(|(file, _)| file.set_modified(SystemTime::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{action, damage, key, store};
    use super::*;

    #[test]
    fn damage_is_found_and_reported_to_readers() {
        let (_folder, store) = store();
        for name in ["good", "damaged", "missing", "garbled"] {
            store.commit(&key(name), &action(&store, name, &[("blob", name.as_bytes())])).unwrap();
        }
        store.put(b"unreferenced").unwrap();
        let path = |name: &str| store.blob_path(&Digest::of(name.as_bytes()));
        // Change the content but not the modification time, as a disk error would.
        let times = std::fs::metadata(path("damaged")).unwrap().modified().unwrap();
        damage(&path("damaged"), b"DAMAGED");
        std::fs::File::open(path("damaged")).unwrap().set_modified(times).unwrap();
        assert!(store.action(&key("damaged")).unwrap().is_some(), "the damage is not visible yet");
        let old = std::fs::read_to_string(store.action_path(&key("good"))).unwrap();
        let old = old.split_once(",\n\"sha256\"").unwrap().0;
        let old = old.replace("\"srpipe_version\": \"\"", "\"srpipe_version\": \"0.1.0\"");
        damage(&store.action_path(&key("good")), format!("{old}}}").as_bytes());
        std::fs::remove_file(path("missing")).unwrap();
        damage(&store.action_path(&key("garbled")), b"{");

        store.commit(&key("other"), &action(&store, "other", &[("blob", b"other")])).unwrap();
        let check = |action: &Action| {
            let digest = &action.outputs["blob"];
            if *digest == Digest::of(b"other") { Err("it has other outputs".to_string()) } else { Ok(()) }
        };
        let verified = store.verify(check).unwrap();
        assert_eq!(verified.sealed, 1);
        let sealed = std::fs::read_to_string(store.action_path(&key("good"))).unwrap();
        damage(&store.action_path(&key("good")), sealed.replace("\"loss\": 0.1", "\"loss\": 0.2").as_bytes());
        assert!(store.action(&key("good")).unwrap().is_none(), "the checksum covers the metrics");
        damage(&store.action_path(&key("good")), sealed.as_bytes());
        let problem = |name: &str| (key(name), "blob".to_string(), Digest::of(name.as_bytes()));
        let (damaged, missing) = (problem("damaged"), problem("missing"));
        let mut expected = vec![
            Problem::InvalidRecord { key: key("other"), reason: "it has other outputs".to_string() },
            verified
                .problems
                .iter()
                .find(|p| matches!(p, Problem::InvalidRecord { key: k, .. } if *k == key("garbled")))
                .unwrap()
                .clone(),
            Problem::Damaged { key: damaged.0, output: damaged.1, digest: damaged.2 },
            Problem::Missing { key: missing.0, output: missing.1, digest: missing.2 },
        ];
        expected.sort();
        assert_eq!(verified.problems, expected);
        assert_eq!((verified.contents.results, verified.contents.blobs, verified.unreferenced), (5, 5, 3));
        assert!(store.action(&key("good")).unwrap().is_some());
        assert!(store.action(&key("damaged")).unwrap().is_none(), "the next run recomputes it");
        store.put(b"damaged").unwrap();
        assert!(store.action(&key("damaged")).unwrap().is_some());
    }
}
