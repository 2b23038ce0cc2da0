//! Determines what a run has to do, before it starts or writes anything.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::cache_state::CacheState;
use super::machine::Machine;
use super::prepared::Prepared;
use super::sources::sources;
use crate::config::{Device, InputError};
use crate::nn;
use crate::pipeline::Pipeline;
use crate::plan::{plan, states};
use crate::store::{Action, Key, Store};

/// Looks up the state of every stage. Without a store, no stage is cached.
pub fn prepare(pipeline: &Pipeline, store: Option<&Store>) -> Result<Prepared> {
    prepare_forced(pipeline, store, BTreeSet::new())
}

/// Like [`prepare`], but the stages in `forced` run even if they are cached.
pub fn prepare_forced(pipeline: &Pipeline, store: Option<&Store>, forced: BTreeSet<usize>) -> Result<Prepared> {
    let cuda = cuda_device(pipeline.device)?;
    let plan = plan(pipeline);
    let sources = sources(&plan, store)?;
    let mut prepared = Prepared { plan, sources, cuda, states: vec![], forced };
    let no_actions: BTreeMap<Key, Action> = BTreeMap::new();
    prepared.states = match store {
        Some(store) => states(&prepared.plan, store, &prepared.sources, prepared.backend()),
        None => states(&prepared.plan, &no_actions, &prepared.sources, prepared.backend()),
    };
    if let Some(store) = store.filter(|_| !prepared.forced.is_empty()) {
        prepared.states = CacheState::new(&prepared, store).into_states();
    }
    Ok(prepared)
}

/// Returns the CUDA device that networks run on; None for the CPU.
pub fn cuda_device(device: Device) -> Result<Option<usize>, InputError> {
    const HAS_CUDA: bool = cfg!(feature = "cuda");
    match device {
        Device::Cpu => Ok(None),
        // Listed GPUs may be unusable: a container may have no driver, and `CUDA_VISIBLE_DEVICES` may name others.
        Device::Auto => Ok((HAS_CUDA && !Machine::detect().gpus.is_empty() && nn::has_gpu()).then_some(0)),
        Device::Cuda(index) if HAS_CUDA => Ok(Some(index)),
        Device::Cuda(_) => Err(InputError(
            "device cuda: this srpipe was built without CUDA. Build it with `cargo build --release --features cuda` \
             where a CUDA toolkit is installed, or use `device: cpu` or `--device cpu`"
                .into(),
        )),
    }
}
