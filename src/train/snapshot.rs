//! What an interrupted training goes on from.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::LossLog;
use crate::nn::{Graph, TrainState};

/// The state of a network in training and the losses so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub state: TrainState,
    pub log: LossLog,
}

#[derive(Serialize, Deserialize)]
struct Header {
    step: u64,
    log: serde_json::Value,
}

const METADATA_KEY: &str = "srpipe";
const PARTS: [&str; 4] = ["weights", "first_moment", "second_moment", "ema"];

impl Snapshot {
    /// Replaces the file at `path`, whole or not at all.
    pub fn save(&self, graph: &Graph, path: &Path) -> Result<()> {
        let s = &self.state;
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = vec![];
        for (part, values) in PARTS.iter().zip([&s.weights, &s.first_moment, &s.second_moment, &s.ema]) {
            for (values, param) in values.iter().zip(&graph.params) {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                tensors.push((format!("{part}.{}", param.name), param.layout.torch_shape(), bytes));
            }
        }
        let views = (tensors.iter())
            .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        let header = serde_json::to_string(&Header { step: s.step, log: self.log.to_json() })?;
        let bytes = safetensors::serialize(views, Some(HashMap::from([(METADATA_KEY.to_string(), header)])))?;
        write(path, &bytes).with_context(|| format!("saving the training to {}", path.display()))
    }

    /// The snapshot at `path`; none where there is no file.
    pub fn load(graph: &Graph, path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
        };
        Self::parse(graph, &bytes).with_context(|| format!("the snapshot {} is damaged", path.display())).map(Some)
    }

    fn parse(graph: &Graph, bytes: &[u8]) -> Result<Self> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)).context("no header")?;
        let header: Header = serde_json::from_str(header)?;
        let tensors = SafeTensors::deserialize(bytes)?;
        let part = |part: &str| {
            (graph.params.iter())
                .map(|p| {
                    let tensor = tensors.tensor(&format!("{part}.{}", p.name))?;
                    ensure!(tensor.shape() == p.layout.torch_shape(), "{part}.{} has another shape", p.name);
                    let floats = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                    Ok(floats.collect())
                })
                .collect::<Result<Vec<Vec<f32>>>>()
        };
        let [weights, first_moment, second_moment, ema] = PARTS.map(part);
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

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("no folder")?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    // Without this a crash of the machine may leave an empty file under the final name.
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
