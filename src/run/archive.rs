//! A run as one file, to be given to somebody: `export` and `import`.
//!
//! A tar archive, compressed with gzip where its name says so, in this order:
//!
//! ```text
//! srpipe-export.json       {"schema": 1}
//! run/run.json             the run's record
//! run/pipeline.yaml        the resolved pipeline
//! actions/<key>.json       a record for each stage that is known
//! blobs/<sha256>           each blob once
//! ```
//!
//! Whoever imports believes nothing: other entries, links, blobs that no record names or that are not what their name
//! says, records that are not their key's are refused, and then nothing of the run is added. Blobs that came before the
//! error lie about until `gc`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::remote::checked;
use crate::store::{Digest, Key, MAX_RECORD_BYTES, Record, RunDir, RunRecord, Store};

const HEAD: &str = "srpipe-export.json";
const RECORD: &str = "run/run.json";
const PIPELINE: &str = "run/pipeline.yaml";
const SCHEMA: u64 = 1;

/// What went into an archive, or came out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    pub pipeline: String,
    pub run: String,
    pub results: usize,
    pub blobs: usize,
    pub bytes: u64,
}

/// Writes a run with every result that is known of it.
pub fn export(store: &Store, run: &RunDir, to: impl Write) -> Result<Moved> {
    let _hold = store.hold()?;
    let record = run.record()?;
    let mut moved = Moved { pipeline: record.pipeline.clone(), run: record.id.clone(), ..Moved::default() };
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
    append_bytes(PIPELINE, &run.resolved()?)?;
    let keys: BTreeSet<&Key> = record.stages.iter().filter_map(|stage| stage.key.as_ref()).collect();
    let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
    for key in keys {
        let Some(result) = store.record_of(key)? else { continue };
        append_bytes(&format!("actions/{key}.json"), result.bytes())?;
        blobs.extend(result.outputs.into_values());
        moved.results += 1;
    }
    ensure!(moved.results > 0, "nothing is known of the run {}: there is nothing to export", record.id);
    for (digest, size) in blobs {
        store.check(&digest).context("nothing damaged is exported; `srpipe run` makes it again")?;
        let path = store.blob_path(&digest);
        let mut file = std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        append(&format!("blobs/{digest}"), size, &mut file)?;
        moved.blobs += 1;
        moved.bytes += size;
    }
    tar.into_inner().and_then(|mut to| to.flush()).context("writing the archive")?;
    Ok(moved)
}

/// Adds the run in an archive, with its results; where the run is there already, the results alone.
pub fn import(store: &Store, from: impl Read) -> Result<Moved> {
    let _hold = store.hold()?;
    let mut from = BufReader::new(from);
    let start = from.fill_buf().context("reading the archive")?;
    match start.starts_with(&[0x1f, 0x8b]) {
        true => unpack(store, flate2::bufread::MultiGzDecoder::new(from)),
        // Every header of the format has its name there.
        false if start.get(257..262).is_some_and(|name| name == b"ustar") => unpack(store, from),
        false => bail!("this is no archive, such as `srpipe export` writes"),
    }
}

fn unpack(store: &Store, from: impl Read) -> Result<Moved> {
    let mut archive = tar::Archive::new(from);
    let (mut head, mut run, mut pipeline): (bool, Option<RunRecord>, Option<Vec<u8>>) = (false, None, None);
    let mut records: BTreeMap<Key, Record> = BTreeMap::new();
    let mut wanted: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut arrived: BTreeMap<Digest, u64> = BTreeMap::new();
    for entry in archive.entries().context("reading the archive")? {
        let mut entry = entry.context("reading the archive")?;
        let path = entry.path().context("reading a name in the archive")?.into_owned();
        let name = path.to_str().context("the archive holds a name that is not UTF-8")?.to_string();
        ensure!(entry.header().entry_type().is_file(), "the archive holds {name:?}, which is no plain file");
        ensure!(head || name == HEAD, "this is not an export of srpipe: it begins with {name:?}, not with {HEAD}");
        let size = entry.size();
        let mut small = |what: &str| -> Result<Vec<u8>> {
            ensure!(size <= MAX_RECORD_BYTES, "{what} in the archive is too large");
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes).with_context(|| format!("reading {what}"))?;
            Ok(bytes)
        };
        if name == HEAD {
            let value: serde_json::Value =
                serde_json::from_slice(&small(HEAD)?).context("reading the archive's head")?;
            let schema = value["schema"].as_u64();
            ensure!(
                schema == Some(SCHEMA),
                "the archive has schema {}, and this srpipe reads schema {SCHEMA}: use the version that made it",
                value["schema"]
            );
            head = true;
        } else if name == RECORD {
            run = Some(RunRecord::from_json(&small(RECORD)?).context("the record of the run is damaged")?);
        } else if name == PIPELINE {
            pipeline = Some(small(PIPELINE)?);
        } else if let Some(key) = name.strip_prefix("actions/").and_then(|n| n.strip_suffix(".json")?.parse().ok()) {
            let record = checked(Record::read(&key, small(&name)?)?)?;
            for (digest, size) in record.outputs.values() {
                ensure!(
                    *wanted.entry(digest.clone()).or_insert(*size) == *size,
                    "two records say different lengths of the blob {digest}"
                );
            }
            records.insert(key, record);
        } else if let Some(digest) = name.strip_prefix("blobs/").and_then(|n| n.parse::<Digest>().ok()) {
            let Some(&expected) = wanted.get(&digest) else {
                bail!("the archive holds the blob {digest}, which no record before it names");
            };
            store.adopt_blob(&digest, expected, &mut entry)?;
            arrived.insert(digest, expected);
        } else {
            bail!("the archive holds {name:?}, which no export of srpipe does");
        }
    }
    let (Some(run), Some(pipeline)) = (run, pipeline) else {
        bail!("the archive ends too early: it holds no run");
    };
    for record in records.values() {
        store.adopt(record).context("the archive is not whole")?;
    }
    store.adopt_run(&run, &pipeline)?;
    Ok(Moved {
        pipeline: run.pipeline,
        run: run.id,
        results: records.len(),
        blobs: arrived.len(),
        bytes: arrived.values().sum(),
    })
}

/// Whether an archive of this name is to be compressed.
pub fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz" || extension == "tgz")
}
