//! A trained model as a safetensors file, with PyTorch's names and layouts:
//! `model.load_state_dict(safetensors.torch.load_file(path))` loads it in PyTorch. The header's metadata contains the
//! model's configuration, as JSON under the key `srpipe`.
//!
//! Files are untrusted. The configuration must pass the checks of a pipeline file, and the tensors must match the
//! network that it declares, before anything is allocated for them. Weights must be finite.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::ModelCost;
use crate::config::{DiffusionParams, ModelParams, Target};
use crate::nn::Graph;
use crate::pipeline::check_network;

/// The configuration of a trained model: everything that using its weights requires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub model: ModelParams,
    /// `residual_scale` is set if the target is the residual.
    pub diffusion: DiffusionParams,
    /// Height and width of the high-resolution images.
    pub image_size: usize,
    /// The factor between high-resolution and low-resolution images.
    pub scale: usize,
    #[serde(flatten)]
    pub cost: ModelCost,
    /// The number of optimiser steps that the weights were trained for.
    pub steps: u64,
}

impl Config {
    /// Returns the network that the configuration declares. Fails if no pipeline file could declare it.
    fn network(&self) -> Result<Graph> {
        check_network(&self.model, &self.diffusion, self.image_size, self.scale).map_err(anyhow::Error::msg)?;
        let has_scale = self.diffusion.target != Target::Residual || self.diffusion.residual_scale.is_some();
        ensure!(has_scale, "`diffusion.residual_scale` is missing, but `diffusion.target: residual` needs it");
        Ok(super::unet(&self.model, self.image_size, self.scale))
    }
}

/// A model's configuration and weights, in the order of its graph's parameters and in PyTorch's layouts.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub config: Config,
    pub weights: Vec<Vec<f32>>,
}

const METADATA_KEY: &str = "srpipe";

/// The maximum length of a header. That of the largest network, with 192 blocks, is about 200 KB.
const MAX_HEADER: u64 = 16 << 20;
/// The number of bytes that precede the header and encode its length.
const PREFIX: u64 = 8;

impl Checkpoint {
    /// Returns the network that the configuration declares.
    pub fn graph(&self) -> Graph {
        super::unet(&self.config.model, self.config.image_size, self.config.scale)
    }

    /// Serialises the checkpoint. Equal checkpoints give equal bytes.
    ///
    /// Fails if a weight is not finite; the error names the tensor.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let graph = self.graph();
        for (p, weights) in graph.params.iter().zip(&self.weights) {
            ensure_finite(&p.name, weights)?;
        }
        let bytes: Vec<Vec<u8>> =
            self.weights.iter().map(|w| w.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = graph
            .params
            .iter()
            .zip(&bytes)
            .map(|(p, bytes)| Ok((p.name.clone(), TensorView::new(Dtype::F32, p.layout.torch_shape(), bytes)?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        // A single entry: the order of a hash map's entries would vary between runs.
        let metadata = HashMap::from([(METADATA_KEY.to_string(), serde_json::to_string(&self.config)?)]);
        Ok(safetensors::serialize(views, Some(metadata))?)
    }

    /// Reads a checkpoint that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// Fails if the bytes are not a checkpoint, the configuration is invalid, the tensors differ from those of the
    /// declared network, or a weight is not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let header_len = header_len(bytes.get(..PREFIX as usize).unwrap_or_default(), bytes.len() as u64)?;
        let header = &bytes[PREFIX as usize..][..header_len];
        let (config, graph) = parse_header(header, bytes.len() as u64)?;
        let file = SafeTensors::deserialize(bytes).context("this is not a valid safetensors file")?;
        ensure!(
            file.len() == graph.params.len(),
            "the file has {} tensors, but the network declared in its header has {}",
            file.len(),
            graph.params.len()
        );
        // Check all shapes before the first copy.
        let views = (graph.params.iter())
            .map(|p| {
                let tensor =
                    file.tensor(&p.name).with_context(|| format!("the checkpoint lacks the tensor {}", p.name))?;
                let shape = p.layout.torch_shape();
                ensure!(tensor.dtype() == Dtype::F32, "the tensor {} must be F32, found {:?}", p.name, tensor.dtype());
                ensure!(
                    tensor.shape() == shape,
                    "the tensor {} must have shape {shape:?}, found {:?}",
                    p.name,
                    tensor.shape()
                );
                Ok((&p.name, tensor))
            })
            .collect::<Result<Vec<_>>>()?;
        let weights = views.into_iter().map(|(name, tensor)| {
            let weights = floats(tensor.data());
            ensure_finite(name, &weights).map(|()| weights)
        });
        Ok(Self { config, weights: weights.collect::<Result<_>>()? })
    }

    /// Reads a checkpoint from a file, like [`from_bytes`](Self::from_bytes). Checks the header against the file's
    /// length before reading the rest.
    pub fn read(path: &Path) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        let mut file = File::open(path).with_context(reading)?;
        let len = file.metadata().with_context(reading)?.len();
        let mut bytes = vec![];
        file.by_ref().take(PREFIX).read_to_end(&mut bytes).with_context(reading)?;
        let header_len = header_len(&bytes, len)?;
        file.by_ref().take(header_len as u64).read_to_end(&mut bytes).with_context(reading)?;
        parse_header(&bytes[PREFIX as usize..], len)?;
        file.take(len).read_to_end(&mut bytes).with_context(reading)?;
        Self::from_bytes(&bytes)
    }
}

/// Returns the length of the header of a file of `len` bytes, given the file's first [`PREFIX`] bytes.
fn header_len(prefix: &[u8], len: u64) -> Result<usize> {
    let prefix =
        <[u8; PREFIX as usize]>::try_from(prefix).ok().context("this is not a safetensors file: it is too short")?;
    let header = u64::from_le_bytes(prefix);
    ensure!(
        header <= MAX_HEADER && header <= len.saturating_sub(PREFIX),
        "this is not a safetensors file: its header claims {header} bytes, but the file has {len}"
    );
    Ok(header as usize)
}

/// Parses the configuration in the header of a file of `len` bytes, and builds the network that it declares. Fails if
/// the file and the network have different parameter counts.
fn parse_header(header: &[u8], len: u64) -> Result<(Config, Graph)> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__", default)]
        metadata: BTreeMap<String, String>,
    }
    let parsed: Header =
        serde_json::from_slice(header).context("this is not a safetensors file: reading its header")?;
    let config = (parsed.metadata.get(METADATA_KEY))
        .context("the checkpoint was not written by srpipe: its header contains no configuration")?;
    let config: Config = serde_json::from_str(config).context("the checkpoint's configuration can't be read")?;
    let graph = config.network().context("the checkpoint's configuration is invalid")?;
    let count = graph.parameter_count();
    ensure!(
        count == config.cost.parameters,
        "the checkpoint's configuration is inconsistent: it states {} parameters, but its network has {count}",
        config.cost.parameters
    );
    let data = len - PREFIX - header.len() as u64;
    ensure!(
        data == 4 * count as u64,
        "the checkpoint declares a network with {count} parameters ({} bytes), but contains {data} bytes",
        4 * count as u64
    );
    Ok((config, graph))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn ensure_finite(name: &str, weights: &[f32]) -> Result<()> {
    match weights.iter().position(|weight| !weight.is_finite()) {
        None => Ok(()),
        Some(at) => anyhow::bail!(
            "the weights are not finite: {name} has {} at index {at}; training diverged, or the file is damaged",
            weights[at]
        ),
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
