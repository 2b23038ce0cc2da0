//! Looking through the whole store: whether every result is what its name says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::time::SystemTime;

use anyhow::Result;

use super::{Digest, Key, ReadError, Store};

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Contents {
    pub results: usize,
    pub blobs: usize,
    pub bytes: u64,
    /// Keys whose work is not done.
    pub unfinished: usize,
}

/// What is wrong with one result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum Problem {
    /// The action cannot be read.
    Garbled {
        key: Key,
    },
    /// Another content than its name says, of another length or of the same.
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

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    pub contents: Contents,
    pub problems: Vec<Problem>,
    /// Blobs of no result: `gc` removes them.
    pub unreferenced: usize,
}

impl Store {
    /// Counts, without reading blobs.
    pub fn contents(&self) -> Contents {
        let sizes = self.blob_sizes();
        Contents {
            results: self.action_keys().len(),
            blobs: sizes.len(),
            bytes: sizes.values().sum(),
            unfinished: self.work_keys().len(),
        }
    }

    /// Reads every blob. A damaged one is marked, so that the next run that comes across it makes it again; nothing
    /// else is changed, and nothing is waited for.
    pub fn verify(&self) -> Result<Verified> {
        self.refuse_links()?;
        let mut verified = Verified { contents: self.contents(), ..Verified::default() };
        let mut checked: BTreeMap<Digest, Option<ReadError>> = BTreeMap::new();
        for key in self.action_keys() {
            let Some(outputs) = self.recorded_outputs(&key)? else {
                verified.problems.push(Problem::Garbled { key });
                continue;
            };
            for (output, digest) in outputs {
                let result = checked.entry(digest.clone()).or_insert_with(|| self.check(&digest).err());
                verified.problems.extend(result.as_ref().map(|error| match error {
                    ReadError::Missing { .. } => Problem::Missing { key: key.clone(), output, digest },
                    ReadError::Corrupt { .. } | ReadError::Io { .. } => {
                        self.mark(&digest);
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

    /// Whether there is a record that cannot be read.
    pub fn is_garbled(&self, key: &Key) -> bool {
        self.action_path(key).exists() && matches!(self.recorded_outputs(key), Ok(None) | Err(_))
    }

    /// What became of a result that was recorded once and is not whole, to be told; None where nothing is wrong.
    pub fn problem(&self, key: &Key) -> Option<String> {
        if !self.action_path(key).exists() || self.action(key).is_ok_and(|action| action.is_some()) {
            return None;
        }
        let Ok(Some(outputs)) = self.recorded_outputs(key) else { return Some("its record is garbled".to_string()) };
        let wrong = outputs.iter().find_map(|(name, digest)| Some((name, digest, self.check(digest).err()?)));
        Some(match wrong {
            Some((name, digest, ReadError::Missing { .. })) => format!("{name} is missing (blob {digest})"),
            Some((name, digest, _)) => format!("{name} is damaged (blob {digest})"),
            None => "its record names other blobs".to_string(),
        })
    }

    /// Gives a blob the look of one that was written to; see [`Store::is_whole`].
    fn mark(&self, digest: &Digest) {
        // Where it cannot be marked, it is found again when it is read.
        let _ = File::open(self.blob_path(digest)).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{action, damage, store};
    use super::*;

    #[test]
    fn damage_is_found_and_then_known_to_readers() {
        let (_folder, store) = store();
        let key = |name: &str| Key::of(name.as_bytes());
        for name in ["good", "damaged", "missing", "garbled"] {
            store.commit(&key(name), &action(&store, &[("blob", name.as_bytes())])).unwrap();
        }
        store.put(b"of nobody").unwrap();
        let path = |name: &str| store.blob_path(&Digest::of(name.as_bytes()));
        // By a disk that changes nothing but the content.
        let times = std::fs::metadata(path("damaged")).unwrap().modified().unwrap();
        damage(&path("damaged"), b"DAMAGED");
        File::open(path("damaged")).unwrap().set_modified(times).unwrap();
        assert!(store.action(&key("damaged")).unwrap().is_some(), "nothing shows");
        std::fs::remove_file(path("missing")).unwrap();
        damage(&store.action_path(&key("garbled")), b"{");

        let verified = store.verify().unwrap();
        let problem = |name: &str| (key(name), "blob".to_string(), Digest::of(name.as_bytes()));
        let (damaged, missing) = (problem("damaged"), problem("missing"));
        let mut expected = vec![
            Problem::Garbled { key: key("garbled") },
            Problem::Damaged { key: damaged.0, output: damaged.1, digest: damaged.2 },
            Problem::Missing { key: missing.0, output: missing.1, digest: missing.2 },
        ];
        expected.sort();
        assert_eq!(verified.problems, expected);
        assert_eq!((verified.contents.results, verified.contents.blobs, verified.unreferenced), (4, 4, 2));
        assert!(store.action(&key("good")).unwrap().is_some());
        assert!(store.action(&key("damaged")).unwrap().is_none(), "so the next run makes it again");
        store.put(b"damaged").unwrap();
        assert!(store.action(&key("damaged")).unwrap().is_some());
    }
}
