//! Starts the stages that are ready, as far as resources allow.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;

use super::{OnFailure, Scheduler};
use crate::plan::StageState;
use crate::run::protocol::TaskSpec;
use crate::run::resource_pool::{Allocation, Load, ResourceRequest};
use crate::run::status::{Cause, Status};
use crate::run::worker::LOG_FILE;
use crate::store::Key;

impl Scheduler<'_> {
    /// Starts the ready stages for which there are resources.
    pub(super) fn start_ready_stages(&mut self) -> Result<()> {
        if self.context.on_failure == OnFailure::StartNothing
            && self.statuses.iter().any(|status| matches!(status, Status::Failed(_)))
        {
            return Ok(());
        }
        let request = |stage: usize| {
            let planned = &self.context.plan.stages[stage];
            ResourceRequest { is_network: planned.params.runs_network(), resources: planned.resources }
        };
        let ready = |stage: &usize| {
            self.statuses[*stage] == Status::Pending && matches!(self.cache.states()[*stage], StageState::Ready { .. })
        };
        let active = |stage: &usize| self.statuses[*stage].is_active();
        let stages = 0..self.statuses.len();
        let candidates: Vec<usize> = stages.clone().filter(ready).collect();
        let unspecified = stages.filter(|stage| active(stage) || ready(stage)).map(request);
        let unspecified = unspecified.filter(|request| request.resources.cpus.is_none());
        let demand = Load::count(unspecified.map(|request| request.is_network));
        let mut running: Vec<(ResourceRequest, Allocation)> =
            self.allocations.iter().map(|(&stage, allocation)| (request(stage), allocation.clone())).collect();
        let mut keys: BTreeSet<Key> =
            (0..self.statuses.len()).filter(active).filter_map(|stage| self.cache.key(stage)).cloned().collect();

        for stage in candidates {
            let StageState::Ready { key, preimage } = &self.cache.states()[stage] else { continue };
            let planned = &self.context.plan.stages[stage];
            let request = ResourceRequest { is_network: planned.params.runs_network(), resources: planned.resources };
            // If two stages have the same key, the second is cached once the first is done.
            if keys.contains(key) {
                continue;
            }
            let Some(allocation) = self.context.pool.allocate(request, &running, demand) else { continue };
            keys.insert(key.clone());
            let spec = TaskSpec {
                key: key.clone(),
                preimage: preimage.clone(),
                params: planned.params.clone(),
                // The first of the visible devices.
                cuda: self.context.cuda.map(|index| if allocation.gpus.is_empty() { index } else { 0 }),
                threads: allocation.threads,
                batch_divisor: self.batch_divisors.get(&stage).copied().unwrap_or(1),
                gpus: allocation.gpus.clone(),
                force: self.cache.is_forced(stage),
                remote: self.context.remote.clone(),
                runs: self.context.store.runs_dir().to_path_buf(),
            };
            self.last_events[stage] = None;
            self.record.stages[stage].job = None;
            self.started[stage] = Instant::now();
            let log = self.context.store.work_dir(key).join(LOG_FILE);
            match self.executor.start(stage, &spec, &log) {
                Ok(()) => {
                    self.allocations.insert(stage, allocation.clone());
                    running.push((request, allocation));
                    self.set(
                        stage,
                        match self.context.pool.is_cluster() {
                            true => Status::Blocked { why: "its job is being submitted".into() },
                            false => Status::Running,
                        },
                    );
                }
                Err(error) => self.fail(stage, Cause::Failed, format!("{error:#}")),
            }
        }
        self.executor.flush();
        // Other stages may depend on one that failed to start.
        self.update_pending()
    }
}
