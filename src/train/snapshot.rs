//! Snapshots of a training run, from which it resumes after an interruption.
//!
//! A snapshot is a safetensors file. Its metadata contains the step, the log so far, and a SHA-256 of both and of every
//! tensor, so that a damaged snapshot never changes a result.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::LossLog;
use crate::nn::{Graph, TrainState};
use crate::store::{Digest, Hasher, read_file, write_file};

/// The state of a network in training, and the log so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub state: TrainState,
    pub log: LossLog,
}

/// The part of the metadata that is stored as JSON.
#[derive(Serialize, Deserialize)]
struct Header {
    step: u64,
    log: serde_json::Value,
}

/// A tensor's name, shape and little-endian f32 values.
type Entry = (String, Vec<usize>, Vec<u8>);

const METADATA_KEY: &str = "srpipe";
const DIGEST_KEY: &str = "sha256";
/// The prefixes of the tensors' names: one per list of parameters in [`TrainState`].
const GROUPS: [&str; 4] = ["weights", "first_moment", "second_moment", "ema"];

impl Snapshot {
    /// Saves the snapshot to `path`; replaces an existing file atomically.
    pub fn save(&self, graph: &Graph, path: &Path) -> Result<()> {
        let s = &self.state;
        let mut tensors: Vec<Entry> = vec![];
        for (group, values) in GROUPS.iter().zip([&s.weights, &s.first_moment, &s.second_moment, &s.ema]) {
            for (values, param) in values.iter().zip(&graph.params) {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                tensors.push((format!("{group}.{}", param.name), param.layout.torch_shape(), bytes));
            }
        }
        let views = (tensors.iter())
            .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        let header = serde_json::to_string(&Header { step: s.step, log: self.log.to_json() })?;
        let digest =
            digest(&header, tensors.iter().map(|(name, shape, bytes)| (name.as_str(), &shape[..], &bytes[..])));
        let metadata =
            HashMap::from([(METADATA_KEY.to_string(), header), (DIGEST_KEY.to_string(), digest.to_string())]);
        let bytes = safetensors::serialize(views, Some(metadata))?;
        write_file(path, &bytes).with_context(|| format!("saving the snapshot {}", path.display()))
    }

    /// Reads the snapshot at `path`; `None` if the file does not exist.
    pub fn load(graph: &Graph, path: &Path) -> Result<Option<Self>> {
        let bytes = match read_file(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
        };
        Self::parse(graph, &bytes).with_context(|| format!("the snapshot {} is damaged", path.display())).map(Some)
    }

    fn parse(graph: &Graph, bytes: &[u8]) -> Result<Self> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let metadata = metadata.metadata().as_ref().context("the metadata is missing")?;
        let header = metadata.get(METADATA_KEY).context("the header is missing")?;
        let tensors = SafeTensors::deserialize(bytes)?;
        let stated = metadata
            .get(DIGEST_KEY)
            .context("the checksum is missing: an older version of srpipe wrote the snapshot")?;
        let names = GROUPS.iter().flat_map(|group| graph.params.iter().map(move |p| format!("{group}.{}", p.name)));
        let names: Vec<String> = names.collect();
        let views: Vec<TensorView> = names.iter().map(|name| tensors.tensor(name)).collect::<Result<_, _>>()?;
        let found = names.iter().zip(&views).map(|(name, view)| (name.as_str(), view.shape(), view.data()));
        ensure!(digest(header, found).as_str() == stated, "its content does not match its checksum");
        let header: Header = serde_json::from_str(header)?;
        let read_group = |group: &str| {
            (graph.params.iter())
                .map(|p| {
                    let tensor = tensors.tensor(&format!("{group}.{}", p.name))?;
                    let shape = p.layout.torch_shape();
                    ensure!(
                        tensor.shape() == shape,
                        "{group}.{} must have shape {shape:?}, found {:?}",
                        p.name,
                        tensor.shape()
                    );
                    let floats = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                    Ok(floats.collect())
                })
                .collect::<Result<Vec<Vec<f32>>>>()
        };
        let [weights, first_moment, second_moment, ema] = GROUPS.map(read_group);
        let state = TrainState {
            step: header.step,
            weights: weights?,
            first_moment: first_moment?,
            second_moment: second_moment?,
            ema: ema?,
        };
        Ok(Self { state, log: LossLog::from_json(header.log)? })
    }
}

/// Computes the SHA-256 of everything that a snapshot contains: the header, then the tensors in the order of the groups
/// and of the graph's parameters.
fn digest<'a>(header: &str, tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>) -> Digest {
    let mut hasher = Hasher::default();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(header.as_bytes());
    for (name, shape, values) in tensors {
        add(name.as_bytes());
        shape.iter().for_each(|&length| add(&(length as u64).to_le_bytes()));
        add(values);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::initial_state;
    use super::*;
    use crate::config::{AttentionKind, ModelParams};
    use crate::model::unet;

    #[test]
    fn altered_bytes_are_detected() {
        let graph = unet(&ModelParams::tutorial(1, AttentionKind::None), 8, 4);
        let mut state = initial_state(&graph, 7);
        state.step = 12;
        let snapshot = Snapshot { state, log: LossLog::default() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        snapshot.save(&graph, &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        // All bytes of the header and a sample of the tensors' bytes.
        let positions = (0..header).chain((header..bytes.len()).step_by(997));
        for at in positions {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << (at % 8);
            fs::write(&path, &altered).unwrap();
            if let Ok(loaded) = Snapshot::load(&graph, &path) {
                assert_eq!(loaded.as_ref(), Some(&snapshot), "byte {at}");
            }
        }
        let text = String::from_utf8_lossy(&bytes[8..header]).replace("\\\"step\\\":12", "\\\"step\\\":13");
        fs::write(&path, [&bytes[..8], text.as_bytes(), &bytes[header..]].concat()).unwrap();
        let error = format!("{:#}", Snapshot::load(&graph, &path).unwrap_err());
        assert!(error.contains("does not match its checksum"), "{error}");
    }
}
