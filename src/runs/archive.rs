//! Exports a run to a single file, and imports it.
//!
//! The file is a tar archive, gzip-compressed if its name ends in `.gz` or `.tgz`, with these members in order:
//!
//! ```text
//! srpipe-export.json       {"schema": 1}
//! run/run.json             the run's record
//! run/pipeline.yaml        the resolved pipeline
//! actions/<key>.json       the record of each cached stage
//! blobs/<sha256>           the blobs, without duplicates
//! ```
//!
//! An import trusts nothing in the archive. It fails, without adding the run, on unexpected entries, entries out of
//! order, links, blobs that no record refers to or whose digest is wrong, records with a wrong key or without a stage,
//! and invalid file names. Memory is bounded whatever sizes the archive claims; disk usage is bounded by the sizes in
//! the records. Blobs that were read before the error stay in the store until `gc`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use serde_json::{Value, json};

use super::remote::checked;
use crate::config::{redact, redact_value};
use crate::io::tar::{Member, walk};
use crate::runs::{RunDir, RunRecord, check_run};
use crate::store::{Digest, Key, MAX_RECORD_BYTES, Record, Store};

const HEAD: &str = "srpipe-export.json";
const RECORD: &str = "run/run.json";
const PIPELINE: &str = "run/pipeline.yaml";
const SCHEMA: u64 = 1;

/// The maximum sizes of the head, a run's record, and a resolved pipeline.
const MAX_HEAD_BYTES: u64 = 64 << 10;
const MAX_RUN_BYTES: u64 = 32 << 20;
const MAX_PIPELINE_BYTES: u64 = 4 << 20;
/// The maximum total size of the records of all results, which are kept in memory until the end.
const MAX_RECORDS_BYTES: u64 = 128 << 20;

/// What was exported or imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Transferred {
    pub pipeline: String,
    pub run: String,
    pub results: usize,
    pub blobs: usize,
    pub bytes: u64,
}

/// Writes a run with all of its cached results to an archive.
pub fn export(store: &Store, run: &RunDir, to: impl Write) -> Result<Transferred> {
    let _guard = store.guard()?;
    let mut record = run.record()?;
    // Records of earlier versions contain secrets.
    record.command.iter_mut().for_each(|argument| *argument = redact_value(argument).into_owned());
    for error in record.stages.iter_mut().filter_map(|stage| stage.error.as_mut()) {
        *error = redact(error).into_owned();
    }
    let mut moved = Transferred { pipeline: record.pipeline.clone(), run: record.id.clone(), ..Transferred::default() };
    let mut tar = tar::Builder::new(to);
    let mut append = |path: &str, size: u64, content: &mut dyn Read| -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).with_context(|| format!("writing {path} to the archive"))
    };
    let mut append_bytes = |path: &str, bytes: &[u8]| append(path, bytes.len() as u64, &mut &bytes[..]);
    append_bytes(HEAD, json!({"schema": SCHEMA, "srpipe": env!("CARGO_PKG_VERSION")}).to_string().as_bytes())?;
    append_bytes(RECORD, &record.to_json()?)?;
    append_bytes(PIPELINE, redact(&String::from_utf8_lossy(&run.resolved()?)).as_bytes())?;
    let keys: BTreeSet<&Key> = record.stages.iter().filter_map(|stage| stage.key.as_ref()).collect();
    let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
    for key in keys {
        let Some(result) = store.export_record(key)? else { continue };
        append_bytes(&format!("actions/{key}.json"), result.bytes())?;
        blobs.extend(result.outputs.into_values());
        moved.results += 1;
    }
    ensure!(moved.results > 0, "nothing to export: the store has no results of run {}", record.id);
    for (digest, size) in blobs {
        store.check(&digest).context("cannot export a damaged result; `srpipe run` recomputes it")?;
        let path = store.blob_path(&digest);
        let mut file = std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        append(&format!("blobs/{digest}"), size, &mut file)?;
        moved.blobs += 1;
        moved.bytes += size;
    }
    tar.into_inner().and_then(|mut to| to.flush()).context("writing the archive")?;
    Ok(moved)
}

/// Imports the run in an archive with its results. If the run already exists, imports only the results.
pub fn import(store: &Store, from: impl Read) -> Result<Transferred> {
    let _guard = store.guard()?;
    let mut from = BufReader::new(from);
    let start = from.fill_buf().context("reading the archive")?;
    match start.starts_with(&[0x1f, 0x8b]) {
        true => unpack(store, flate2::bufread::MultiGzDecoder::new(from)),
        // The magic number of the tar header.
        false if start.get(257..262).is_some_and(|name| name == b"ustar") => unpack(store, from),
        false => bail!("this is not an archive written by `srpipe export`"),
    }
}

fn unpack(store: &Store, from: impl Read) -> Result<Transferred> {
    let mut parts = Parts::default();
    let unreadable = |e| Error::new(e).context("reading the archive");
    walk(from, unreadable, |member| parts.read(store, member))?;
    parts.commit(store)
}

/// The parts of an archive that were read so far.
#[derive(Default)]
struct Parts {
    has_head: bool,
    run: Option<RunRecord>,
    /// The keys of the run's stages.
    keys: BTreeSet<Key>,
    pipeline: Option<Vec<u8>>,
    /// The unparsed records, because parsed ones take far more memory.
    records: BTreeMap<Key, Vec<u8>>,
    record_bytes: u64,
    /// The blobs that the records refer to, with their sizes.
    wanted: BTreeMap<Digest, u64>,
    arrived: BTreeSet<Digest>,
}

impl Parts {
    fn read(&mut self, store: &Store, member: Member) -> Result<()> {
        let name = String::from_utf8(member.path).context("the archive contains a name that is not UTF-8")?;
        ensure!(member.kind.is_file(), "the archive contains {name:?}, which is not a regular file");
        let is_first = !self.has_head;
        ensure!(!is_first || name == HEAD, "this is not an srpipe export: it begins with {name:?} instead of {HEAD}");
        let mut read_small = |max_bytes: u64| -> Result<Vec<u8>> {
            ensure!(
                member.size <= max_bytes,
                "{name} in the archive has {} bytes; at most {max_bytes} are accepted",
                member.size
            );
            let mut bytes = vec![];
            member.content.read_to_end(&mut bytes).with_context(|| format!("reading {name}"))?;
            ensure!(bytes.len() as u64 == member.size, "the archive is truncated in {name}");
            Ok(bytes)
        };
        let duplicate = || format!("the archive contains {name:?} twice");
        match name.as_str() {
            HEAD => {
                ensure!(is_first, duplicate());
                let value: Value =
                    serde_json::from_slice(&read_small(MAX_HEAD_BYTES)?).context("reading the archive's head")?;
                ensure!(
                    value["schema"].as_u64() == Some(SCHEMA),
                    "the archive has schema {}, but this srpipe reads schema {SCHEMA}: import it with the version that exported it",
                    value["schema"]
                );
                self.has_head = true;
            }
            RECORD => {
                ensure!(self.run.is_none(), duplicate());
                let run =
                    RunRecord::from_json(&read_small(MAX_RUN_BYTES)?).context("the record of the run is damaged")?;
                check_run(&run)?;
                self.keys = run.stages.iter().filter_map(|stage| stage.key.clone()).collect();
                self.run = Some(run);
            }
            PIPELINE => {
                ensure!(self.pipeline.is_none(), duplicate());
                self.pipeline = Some(read_small(MAX_PIPELINE_BYTES)?);
            }
            _ => {
                let key = name.strip_prefix("actions/").and_then(|n| n.strip_suffix(".json")?.parse::<Key>().ok());
                let digest = name.strip_prefix("blobs/").and_then(|n| n.parse::<Digest>().ok());
                match (key, digest) {
                    (Some(key), _) => {
                        ensure!(!self.records.contains_key(&key), duplicate());
                        ensure!(
                            self.keys.contains(&key),
                            "the archive contains {name:?}, which belongs to no stage listed before it"
                        );
                        self.record(key, read_small(MAX_RECORD_BYTES)?)?;
                    }
                    (_, Some(digest)) => {
                        let Some(&expected) = self.wanted.get(&digest) else {
                            bail!("the archive contains the blob {digest}, which no preceding record refers to");
                        };
                        ensure!(!self.arrived.contains(&digest), duplicate());
                        ensure!(
                            member.size == expected,
                            "the blob {digest} has {} bytes, but its record states {expected}",
                            member.size
                        );
                        store.import_blob(&digest, expected, member.content)?;
                        self.arrived.insert(digest);
                    }
                    _ => bail!("the archive contains {name:?}, which is not part of an srpipe export"),
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, key: Key, bytes: Vec<u8>) -> Result<()> {
        self.record_bytes += bytes.len() as u64;
        ensure!(
            self.record_bytes <= MAX_RECORDS_BYTES,
            "the records in the archive have more than {MAX_RECORDS_BYTES} bytes in total"
        );
        let record = checked(Record::parse(&key, bytes)?)?;
        for (digest, size) in record.outputs.values() {
            ensure!(
                *self.wanted.entry(digest.clone()).or_insert(*size) == *size,
                "two records state different sizes of the blob {digest}"
            );
        }
        self.records.insert(key, record.bytes().to_vec());
        Ok(())
    }

    /// Adds the results, then the run. Everything was checked before, except for blobs that are already in the store.
    fn commit(self, store: &Store) -> Result<Transferred> {
        let (Some(run), Some(pipeline)) = (self.run, self.pipeline) else {
            bail!("the archive is truncated: it contains no run");
        };
        // Blobs that are already in the store may be missing from the archive.
        for digest in self.wanted.keys().filter(|digest| !self.arrived.contains(digest)) {
            store.check(digest).context("the archive is incomplete")?;
        }
        let results = self.records.len();
        for (key, bytes) in self.records {
            store.import_record(&Record::parse(&key, bytes)?)?;
        }
        store.import_run(&run, &pipeline)?;
        Ok(Transferred {
            pipeline: run.pipeline,
            run: run.id,
            results,
            blobs: self.arrived.len(),
            bytes: self.arrived.iter().map(|digest| self.wanted[digest]).sum(),
        })
    }
}

/// Whether an archive with this name is compressed.
pub fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz" || extension == "tgz")
}
