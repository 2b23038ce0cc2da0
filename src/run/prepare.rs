//! What there is to do, found out before anything is started or written.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Result;

use crate::pipeline::params::{Cifar10Params, FetchParams};
use crate::pipeline::{Device, Pipeline, StageParams};
use crate::plan::{BackendClass, Plan, Sources, StageState, plan, states};
use crate::store::{Action, Digest, Key, RunDir, RunState, Store, hash_file};

/// What the user asked for cannot be done as it stands; the text says what to do about it.
#[derive(Debug)]
pub struct InputError(pub String);

impl std::fmt::Display for InputError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InputError {}

/// A pipeline with the state of every stage.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub plan: Plan,
    pub sources: Sources,
    /// The CUDA device of stages that run a network, or none for the CPU.
    pub cuda: Option<usize>,
    pub states: Vec<StageState>,
}

impl Prepared {
    /// `store`: none where there is none yet, and then nothing is known.
    pub fn new(pipeline: &Pipeline, store: Option<&Store>) -> Result<Self> {
        let cuda = cuda(pipeline.device)?;
        let plan = plan(pipeline);
        let sources = sources(&plan, store)?;
        let mut prepared = Self { plan, sources, cuda, states: vec![] };
        let nothing: BTreeMap<Key, Action> = BTreeMap::new();
        prepared.states = match store {
            Some(store) => states(&prepared.plan, store, &prepared.sources, prepared.backend()),
            None => states(&prepared.plan, &nothing, &prepared.sources, prepared.backend()),
        };
        Ok(prepared)
    }

    pub fn backend(&self) -> BackendClass {
        if self.cuda.is_some() { BackendClass::Cuda } else { BackendClass::Cpu }
    }

    pub fn is_done(&self) -> bool {
        self.states.iter().all(|state| matches!(state, StageState::Cached { .. }))
    }

    /// Whether `run` ended well and holds these very results, so that a run now would add nothing to it.
    pub fn is_run(&self, run: &RunDir) -> bool {
        let Ok(record) = run.record() else { return false };
        let same = |(i, stage): (usize, &crate::store::StageRecord)| {
            let StageState::Cached { key, .. } = &self.states[i] else { return false };
            stage.name == self.plan.stages[i].name && stage.key.as_ref() == Some(key)
        };
        record.state == RunState::Ok
            && record.stages.len() == self.states.len()
            && record.stages.iter().enumerate().all(same)
    }
}

/// The CUDA device that networks run on, if any.
fn cuda(device: Device) -> Result<Option<usize>, InputError> {
    const BUILT: bool = cfg!(feature = "cuda");
    match device {
        Device::Cpu => Ok(None),
        // The driver's control node tells without loading the driver.
        Device::Auto => Ok((BUILT && Path::new("/dev/nvidiactl").exists()).then_some(0)),
        Device::Cuda(index) if BUILT => Ok(Some(index)),
        Device::Cuda(_) => Err(InputError(
            "device cuda: this srpipe is built without CUDA. Build it with `cargo build --release --features cuda` \
             where a CUDA toolkit is installed, or say `device: cpu` or `--device cpu`"
                .into(),
        )),
    }
}

/// The content that comes from outside: digests as the file pins them, or of local files.
fn sources(plan: &Plan, store: Option<&Store>) -> Result<Sources> {
    // Several stages can read one archive.
    let mut hashed: HashMap<&str, Digest> = HashMap::new();
    let mut sources = Sources::new();
    for stage in &plan.stages {
        let StageParams::Fetch(FetchParams::Cifar10(params)) = &stage.params else { continue };
        let digest = match local_path(params) {
            Some(path) => {
                if !hashed.contains_key(path) {
                    hashed.insert(path, hash_local(path, &stage.name, store)?);
                }
                let digest = hashed[path].clone();
                if let Some(pinned) = pinned(params, &stage.name)?.filter(|pinned| *pinned != digest) {
                    return Err(InputError(format!(
                        "stage {name}: {path} has the SHA-256\n  {digest}, and stages.{name}.sha256 says\n  {pinned}.\n\
                         Get the file again, or correct the field",
                        name = stage.name
                    ))
                    .into());
                }
                digest
            }
            None => match (pinned(params, &stage.name)?, &params.url) {
                (Some(pinned), _) => pinned,
                (None, None) => official(),
                (None, Some(url)) => {
                    return Err(InputError(format!(
                        "stage {name}: stages.{name}.url is {url}, and nothing says what is expected there. \
                         Add `sha256:` with the SHA-256 of the archive",
                        name = stage.name
                    ))
                    .into());
                }
            },
        };
        sources.insert(stage.name.clone(), BTreeMap::from([("archive".to_string(), digest)]));
    }
    Ok(sources)
}

fn official() -> Digest {
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd".parse().expect("it is a SHA-256")
}

fn local_path(params: &Cifar10Params) -> Option<&str> {
    params.url.as_deref()?.strip_prefix("file:")
}

fn pinned(params: &Cifar10Params, stage: &str) -> Result<Option<Digest>, InputError> {
    let parse = |text: &String| text.parse().map_err(|e| InputError(format!("stages.{stage}.sha256: {e}")));
    params.sha256.as_ref().map(parse).transpose()
}

fn hash_local(path: &str, stage: &str, store: Option<&Store>) -> Result<Digest> {
    let file = Path::new(path);
    let hash = || match store {
        Some(store) => store.hash_file_cached(file),
        None => Ok(hash_file(file)?),
    };
    if !file.is_file() {
        let place = match std::path::absolute(file) {
            Ok(absolute) if absolute != file => format!("{path} (that is {})", absolute.display()),
            _ => path.to_string(),
        };
        let what = if file.exists() { "is not a file" } else { "does not exist" };
        return Err(InputError(format!(
            "stage {stage}: {place} {what}. Put the CIFAR-10 binary archive there, name another file in \
             stages.{stage}.url, or leave `url` out to download it"
        ))
        .into());
    }
    hash().map_err(|e| InputError(format!("stage {stage}: stages.{stage}.url: reading {path}: {e:#}")).into())
}
