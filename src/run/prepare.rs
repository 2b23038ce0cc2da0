//! Determines what a run has to do, before anything is started or written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cache_state::CacheState;
use super::machine::Machine;
use super::resource_pool::ResourcePool;
use crate::config::InputError;
use crate::config::expansion_hint;
use crate::config::{Cifar10Params, FetchParams, FolderParams};
use crate::config::{Device, StageParams};
use crate::data::cifar::{self, Source};
use crate::data::folder;
use crate::nn;
use crate::pipeline::{Pipeline, Stage};
use crate::plan::{BackendClass, Plan, PlannedStage, Sources, StageState, plan, states};
use crate::runs::{RunDir, RunState};
use crate::store::{Action, Digest, Key, Store, hash_file};

/// A pipeline with the state of every stage.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub plan: Plan,
    pub sources: Sources,
    /// The CUDA device for stages that run a network; None for the CPU.
    pub cuda: Option<usize>,
    /// By stage, as in the store; forced stages are not cached.
    pub states: Vec<StageState>,
    /// Stages that run even if they are cached.
    pub forced: BTreeSet<usize>,
}

impl Prepared {
    /// Without a store, no stage is cached.
    pub fn new(pipeline: &Pipeline, store: Option<&Store>) -> Result<Self> {
        Self::forced(pipeline, store, BTreeSet::new())
    }

    /// Like [`new`](Self::new), but the stages `forced` run even if they are cached.
    pub fn forced(pipeline: &Pipeline, store: Option<&Store>, forced: BTreeSet<usize>) -> Result<Self> {
        let cuda = cuda(pipeline.device)?;
        let plan = plan(pipeline);
        let sources = sources(&plan, store)?;
        let mut prepared = Self { plan, sources, cuda, states: vec![], forced };
        let nothing: BTreeMap<Key, Action> = BTreeMap::new();
        prepared.states = match store {
            Some(store) => states(&prepared.plan, store, &prepared.sources, prepared.backend()),
            None => states(&prepared.plan, &nothing, &prepared.sources, prepared.backend()),
        };
        if let Some(store) = store.filter(|_| !prepared.forced.is_empty()) {
            prepared.states = CacheState::new(&prepared, store).into_states();
        }
        Ok(prepared)
    }

    pub fn backend(&self) -> BackendClass {
        if self.cuda.is_some() { BackendClass::Cuda } else { BackendClass::Cpu }
    }

    /// Fails if a stage that is not cached requests more than the machine has, or a GPU that does not exist.
    pub fn check_fits(&self, pipeline: &Pipeline, machine: &Machine) -> Result<(), InputError> {
        let pool = ResourcePool { machine: Some(machine.clone()), jobs: None, cuda: self.cuda };
        let stages = pipeline.stages.iter().zip(&self.states);
        let errors =
            stages.filter(|(_, state)| !matches!(state, StageState::Cached { .. })).filter_map(|(stage, _)| {
                let (field, why) = pool.unsatisfiable(&stage.resources)?;
                let place = pipeline.nearest_position(stage, &format!("resources.{field}"));
                let place = place.map_or(String::new(), |place| format!("{place}: "));
                Some(format!("{place}stage {} requests `resources.{field}` of {why}", stage.name))
            });
        let on_gpu = |(stage, state): (&Stage, &StageState)| {
            stage.params.runs_network() && !matches!(state, StageState::Cached { .. })
        };
        let no_gpu = self.cuda.and_then(|index| missing(index, machine.gpus.len()));
        let no_gpu = no_gpu.filter(|_| pipeline.stages.iter().zip(&self.states).any(on_gpu));
        let errors: Vec<String> = no_gpu.into_iter().chain(errors).collect();
        if errors.is_empty() { Ok(()) } else { Err(InputError(errors.join("\n"))) }
    }

    pub fn is_done(&self) -> bool {
        self.states.iter().all(|state| matches!(state, StageState::Cached { .. }))
    }

    /// Whether `run` succeeded with exactly these results, so that a new run would add nothing.
    pub fn is_run(&self, run: &RunDir) -> bool {
        let Ok(record) = run.record() else { return false };
        let same = |(i, stage): (usize, &crate::runs::StageRecord)| {
            let StageState::Cached { key, .. } = &self.states[i] else { return false };
            stage.name == self.plan.stages[i].name && stage.key.as_ref() == Some(key)
        };
        record.state == RunState::Ok
            && record.stages.len() == self.states.len()
            && record.stages.iter().enumerate().all(same)
    }
}

/// Returns an error message if GPU `index` does not exist among `gpus` GPUs.
fn missing(index: usize, gpus: usize) -> Option<String> {
    match gpus {
        0 => Some(format!(
            "device cuda:{index}: no NVIDIA GPU or no driver was found: `nvidia-smi -L` lists none (or \
             CUDA_VISIBLE_DEVICES hides them). Use `device: cpu` or `--device cpu`"
        )),
        _ if index < gpus => None,
        1 => Some(format!("device cuda:{index}: there is one GPU, cuda:0")),
        _ => Some(format!("device cuda:{index}: there are {gpus} GPUs, cuda:0 to cuda:{}", gpus - 1)),
    }
}

/// Returns the CUDA device that networks run on; None for the CPU.
pub fn cuda(device: Device) -> Result<Option<usize>, InputError> {
    const BUILT: bool = cfg!(feature = "cuda");
    match device {
        Device::Cpu => Ok(None),
        // Listed GPUs may be unusable: a container may have no driver, and `CUDA_VISIBLE_DEVICES` may name others.
        Device::Auto => Ok((BUILT && !Machine::here().gpus.is_empty() && nn::has_gpu()).then_some(0)),
        Device::Cuda(index) if BUILT => Ok(Some(index)),
        Device::Cuda(_) => Err(InputError(
            "device cuda: this srpipe is built without CUDA. Build it with `cargo build --release --features cuda` \
             where a CUDA toolkit is installed, or use `device: cpu` or `--device cpu`"
                .into(),
        )),
    }
}

/// Returns the digests of external content: as pinned in the pipeline file, or of local files.
fn sources(plan: &Plan, store: Option<&Store>) -> Result<Sources> {
    // Several stages can read the same file.
    let mut hashed: HashMap<PathBuf, Digest> = HashMap::new();
    let mut sources = Sources::new();
    for PlannedStage { name, base, params, .. } in &plan.stages {
        let wrong = |error: anyhow::Error| anyhow::Error::from(InputError(format!("stage {name}: {error:#}")));
        let one = |role: &str, digest| BTreeMap::from([(role.to_string(), digest)]);
        let found = match params {
            StageParams::Fetch(FetchParams::Cifar10(params)) => {
                one("archive", archive(params, base, store, &mut hashed)?)
            }
            StageParams::Fetch(FetchParams::Folder(params)) => {
                one("images", folder_content(params, store).map_err(wrong)?)
            }
            StageParams::Command(params) if !params.files.is_empty() => {
                let mut digests = BTreeMap::new();
                for file in &params.files {
                    let digest = match hashed.get(Path::new(file)) {
                        Some(digest) => digest.clone(),
                        None => hash_needed(Path::new(file), base, store)?,
                    };
                    hashed.insert(file.into(), digest.clone());
                    digests.insert(format!("files.{file}"), digest);
                }
                digests
            }
            _ => continue,
        };
        sources.insert(name.clone(), found);
    }
    Ok(sources)
}

/// Returns the digest of the pictures in a folder, as the stage will compute it.
fn folder_content(params: &FolderParams, store: Option<&Store>) -> Result<Digest> {
    let listing = folder::list(Path::new(&params.path), store.map(Store::runs_dir))?;
    let digests = match store {
        Some(store) => store.hash_files_cached(&listing.files)?,
        None => {
            let digest = |file: &PathBuf| hash_file(file).with_context(|| format!("reading {}", file.display()));
            listing.files.iter().map(digest).collect::<Result<_>>()?
        }
    };
    Ok(listing.content(&digests, params.broken))
}

/// Returns the digest of a CIFAR-10 archive. `hashed` contains the digests of files that other stages read.
fn archive(
    params: &Cifar10Params,
    stage: &str,
    store: Option<&Store>,
    hashed: &mut HashMap<PathBuf, Digest>,
) -> Result<Digest> {
    let wrong = |error: String| InputError(format!("stage {stage}: {error}"));
    let pinned = |text: &str| text.parse::<Digest>().map_err(|e| wrong(format!("stages.{stage}.sha256: {e}")));
    match cifar::source(params).map_err(|e| wrong(format!("{e:#}")))? {
        Source::Web { sha256, .. } => Ok(pinned(&sha256)?),
        Source::File { path, sha256 } => {
            let digest = match hashed.get(&path) {
                Some(digest) => digest.clone(),
                None => hash_local(&path, stage, store)?,
            };
            if let Some(sha256) = sha256
                && pinned(&sha256)? != digest
            {
                return Err(wrong(format!(
                    "{path} has the SHA-256\n  {digest}, but stages.{stage}.sha256 is\n  {sha256}.\n\
                     Get the file again, or correct the field",
                    path = path.display()
                ))
                .into());
            }
            hashed.insert(path, digest.clone());
            Ok(digest)
        }
    }
}

/// Returns the digest of a file that a command reads.
fn hash_needed(path: &Path, stage: &str, store: Option<&Store>) -> Result<Digest> {
    let shown = path.display();
    if !path.is_file() {
        let what = if path.exists() { "is not a file" } else { "does not exist" };
        let folder = std::env::current_dir().map(|folder| format!(" in {}", folder.display())).unwrap_or_default();
        return Err(InputError(format!(
            "stage {stage}: stages.{stage}.files: {shown} {what}{folder}. Paths are relative to the folder that srpipe \
             is started in{}",
            expansion_hint(path)
        ))
        .into());
    }
    let digest = match store {
        Some(store) => store.hash_file_cached(path),
        None => hash_file(path).map_err(Into::into),
    };
    digest.map_err(|e| InputError(format!("stage {stage}: stages.{stage}.files: reading {shown}: {e:#}")).into())
}

fn hash_local(path: &Path, stage: &str, store: Option<&Store>) -> Result<Digest> {
    let shown = path.display();
    if !path.is_file() {
        let place = match std::path::absolute(path) {
            Ok(absolute) if absolute != path => format!("{shown} (that is {})", absolute.display()),
            _ => shown.to_string(),
        };
        let what = if path.exists() { "is not a file" } else { "does not exist" };
        return Err(InputError(format!(
            "stage {stage}: {place} {what}. Put the CIFAR-10 binary archive there, name another file in \
             stages.{stage}.url, or leave `url` out to download it{}",
            expansion_hint(path)
        ))
        .into());
    }
    let digest = match store {
        Some(store) => store.hash_file_cached(path),
        None => hash_file(path).map_err(Into::into),
    };
    digest.map_err(|e| InputError(format!("stage {stage}: stages.{stage}.url: reading {shown}: {e:#}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_gpu_is_reported_before_anything_starts() {
        let text = "name: p\nseed: 0\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic, train: 1}\n  \
                    pairs: {kind: degrade, input: images}\n  model: {kind: train, data: pairs, optim: {steps: 1}}\n";
        let pipeline = crate::pipeline::parse("p.yaml", text, &Default::default()).ok().unwrap();
        let mut prepared = Prepared::new(&pipeline, None).unwrap();
        let mut error = |cuda, gpus: &[&str]| {
            prepared.cuda = cuda;
            let gpus = gpus.iter().map(|gpu| gpu.to_string()).collect();
            let machine = Machine { cores: 2, memory: None, gpus };
            prepared.check_fits(&pipeline, &machine).err().map(|error| error.to_string())
        };
        assert_eq!(error(None, &[]), None);
        assert_eq!(error(Some(1), &["4", "7"]), None);
        assert!(error(Some(0), &[]).unwrap().contains("nvidia-smi -L"));
        assert_eq!(error(Some(1), &["0"]).unwrap(), "device cuda:1: there is one GPU, cuda:0");
        assert_eq!(error(Some(5), &["4", "7"]).unwrap(), "device cuda:5: there are 2 GPUs, cuda:0 to cuda:1");
        // A stage without a network needs no GPU.
        let images = crate::pipeline::parse("p.yaml", &text[..text.find("  pairs").unwrap()], &Default::default());
        let images = images.ok().unwrap();
        let prepared = Prepared { cuda: Some(0), ..Prepared::new(&images, None).unwrap() };
        assert!(prepared.check_fits(&images, &Machine::default()).is_ok());
    }
}
