//! A pipeline that is ready to run: whether each stage is cached, and whether the machine has the requested resources.

use std::collections::BTreeSet;

use super::machine::Machine;
use super::resource_pool::ResourcePool;
use crate::config::InputError;
use crate::pipeline::{Pipeline, Stage};
use crate::plan::{BackendClass, Plan, Sources, StageState};
use crate::runs::{RunDir, RunState, StageRecord};

/// A pipeline with the state of every stage.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub plan: Plan,
    pub sources: Sources,
    /// The CUDA device for stages that run a network; None for the CPU.
    pub cuda: Option<usize>,
    /// The state of each stage in the store; forced stages do not count as cached.
    pub states: Vec<StageState>,
    /// Stages that run even if they are cached.
    pub forced: BTreeSet<usize>,
}

impl Prepared {
    pub fn backend(&self) -> BackendClass {
        if self.cuda.is_some() { BackendClass::Cuda } else { BackendClass::Cpu }
    }

    /// Fails if a stage that is not cached requests more than the machine has, or needs a GPU that does not exist.
    pub fn check_fits(&self, pipeline: &Pipeline, machine: &Machine) -> Result<(), InputError> {
        let pool = ResourcePool { machine: Some(machine.clone()), jobs: None, cuda: self.cuda };
        let stages = pipeline.stages.iter().zip(&self.states);
        let errors =
            stages.filter(|(_, state)| !matches!(state, StageState::Cached { .. })).filter_map(|(stage, _)| {
                let (field, why) = pool.unsatisfiable(&stage.resources)?;
                let position = pipeline.nearest_position(stage, &format!("resources.{field}"));
                let position = position.map_or(String::new(), |position| format!("{position}: "));
                Some(format!("{position}stage {} requests `resources.{field}` of {why}", stage.name))
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
    pub fn matches_run(&self, run: &RunDir) -> bool {
        let Ok(record) = run.record() else { return false };
        let same = |(i, stage): (usize, &StageRecord)| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_gpu_is_reported_before_anything_starts() {
        let text = "name: p\nseed: 0\ndevice: cpu\nstages:\n  images: {kind: fetch, dataset: synthetic, train: 1}\n  \
                    pairs: {kind: degrade, input: images}\n  model: {kind: train, data: pairs, optim: {steps: 1}}\n";
        let pipeline = crate::pipeline::parse("p.yaml", text, &Default::default()).ok().unwrap();
        let mut prepared = crate::run::prepare(&pipeline, None).unwrap();
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
        let prepared = Prepared { cuda: Some(0), ..crate::run::prepare(&images, None).unwrap() };
        assert!(prepared.check_fits(&images, &Machine::default()).is_ok());
    }
}
