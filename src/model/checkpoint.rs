//! A trained model as a file: safetensors with PyTorch's names and layouts, so that
//! `model.load_state_dict(safetensors.torch.load_file(path))` is all it takes there, and with the model's configuration
//! as JSON under `srpipe` in the header's metadata, so that the file says what it is.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::Cost;
use crate::nn::Graph;
use crate::pipeline::params::{DiffusionParams, ModelParams};

/// All that is needed to use a model's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub model: ModelParams,
    /// With `residual_scale` filled in where the target is the residual.
    pub diffusion: DiffusionParams,
    /// Height and width of the high-resolution images.
    pub image_size: usize,
    /// How many times smaller the low-resolution images are.
    pub scale: usize,
    #[serde(flatten)]
    pub cost: Cost,
    /// Optimiser steps behind the weights.
    pub steps: u64,
}

/// A model's configuration and its weights, in the order of its graph's parameters, in PyTorch's layouts.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub config: Config,
    pub weights: Vec<Vec<f32>>,
}

const METADATA_KEY: &str = "srpipe";

impl Checkpoint {
    pub fn graph(&self) -> Graph {
        super::unet(&self.config.model, self.config.image_size, self.config.scale)
    }

    /// The same bytes for the same checkpoint.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let graph = self.graph();
        let bytes: Vec<Vec<u8>> =
            self.weights.iter().map(|w| w.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = graph
            .params
            .iter()
            .zip(&bytes)
            .map(|(p, bytes)| Ok((p.name.clone(), TensorView::new(Dtype::F32, p.layout.torch_shape(), bytes)?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        // One entry only: the order of a hash map's entries would vary from run to run.
        let metadata = HashMap::from([(METADATA_KEY.to_string(), serde_json::to_string(&self.config)?)]);
        Ok(safetensors::serialize(views, Some(metadata))?)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).context("this is not a safetensors file")?;
        let config = (header.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)))
            .context("the checkpoint was not made by srpipe: its header holds no configuration")?;
        let config: Config = serde_json::from_str(config).context("the checkpoint's configuration can't be read")?;
        let tensors = SafeTensors::deserialize(bytes)?;
        let graph = super::unet(&config.model, config.image_size, config.scale);
        let weights = (graph.params.iter())
            .map(|p| {
                let tensor = tensors.tensor(&p.name).with_context(|| format!("the checkpoint lacks {}", p.name))?;
                let shape = p.layout.torch_shape();
                ensure!(tensor.dtype() == Dtype::F32, "{} is {:?}, not F32", p.name, tensor.dtype());
                ensure!(tensor.shape() == shape, "{} is {:?}, not {shape:?}", p.name, tensor.shape());
                Ok(floats(tensor.data()))
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, weights })
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
