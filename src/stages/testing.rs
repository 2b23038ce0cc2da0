//! Test support: a context with a store in a temporary folder.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{Context, Outcome, StageEvent};
use crate::data::{Images, Metadata};
use crate::store::{Artifact, Digest, Store};

pub(super) struct Bench {
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) inputs: BTreeMap<String, Artifact>,
    pub(super) sources: BTreeMap<String, Digest>,
    pub(super) events: &'static Mutex<Vec<StageEvent>>,
    report: Box<dyn Fn(StageEvent) + Sync>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("runs")).unwrap();
        // Leaked: the few events of a test may live as long as the process.
        let events: &'static Mutex<Vec<StageEvent>> = Box::leak(Box::default());
        let report = Box::new(|event| events.lock().unwrap().push(event));
        Self { folder, store, inputs: BTreeMap::new(), sources: BTreeMap::new(), events, report }
    }

    pub(super) fn context<'a>(&'a self, interrupted: &'a (dyn Fn() -> bool + Sync)) -> Context<'a> {
        Context {
            store: &self.store,
            inputs: self.inputs.clone(),
            sources: self.sources.clone(),
            seed: 1,
            threads: 2,
            gpus: String::new(),
            device: crate::config::Device::Cpu,
            batch_divisor: 1,
            work: self.folder.path().join("work"),
            report: &*self.report,
            interrupted,
            launcher: None,
        }
    }

    /// Returns the images in one of the outcome's blobs.
    pub(super) fn images(&self, outcome: &Outcome, blob: &str) -> (Images, Metadata) {
        Images::from_safetensors(&self.store.read(&outcome.outputs[blob]).unwrap()).unwrap()
    }
}
