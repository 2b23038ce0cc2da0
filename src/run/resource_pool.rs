//! Decides how many stages run at the same time, and with how many threads. Results depend on neither.
//!
//! A stage that runs a network scales well to about [`CORES_PER_NETWORK`] cores. Few networks with many threads each
//! use less memory than many networks, and the first result is ready earlier. Other stages are short and run at the
//! same time. With `--jobs N`, up to N stages run at the same time and share the cores.
//!
//! A stage with `resources` starts when they are free, and gets exactly those.

use super::machine::Machine;
use crate::config::Resources;

/// More threads than this speed up a small network only slightly.
const CORES_PER_NETWORK: usize = 8;

/// The resources that the stages of a run share.
#[derive(Debug, Clone, Default)]
pub struct ResourcePool {
    /// None if the executor has its own queue.
    pub machine: Option<Machine>,
    /// The maximum number of stages, if the user sets one.
    pub(super) jobs: Option<usize>,
    /// The CUDA device for networks, used by one stage at a time: two stages at once would not be faster.
    pub(super) cuda: Option<usize>,
}

/// The resources that a stage requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResourceRequest {
    pub(super) is_network: bool,
    pub(super) resources: Resources,
}

/// The resources that a stage gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allocation {
    pub(super) threads: usize,
    /// As `CUDA_VISIBLE_DEVICES` names them.
    pub(super) gpus: Vec<String>,
}

/// Numbers of stages: those that run a network, and others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    networks: usize,
    others: usize,
}

impl Load {
    pub(super) fn count(networks: impl Iterator<Item = bool>) -> Self {
        networks.fold(Self::default(), |load, is_network| {
            let (networks, others) = if is_network { (1, 0) } else { (0, 1) };
            Self { networks: load.networks + networks, others: load.others + others }
        })
    }

    fn total(self) -> usize {
        self.networks + self.others
    }
}

impl ResourcePool {
    /// Returns an allocation for a stage, given the running ones; None if it must wait. `demand` counts the running
    /// and ready stages that do not request a number of cores, including this one.
    pub(super) fn allocate(
        &self,
        request: ResourceRequest,
        running: &[(ResourceRequest, Allocation)],
        demand: Load,
    ) -> Option<Allocation> {
        if self.jobs.is_some_and(|jobs| running.len() >= jobs) {
            return None;
        }
        let Some(machine) = &self.machine else { return Some(Allocation { threads: 1, gpus: vec![] }) };
        let requested = request.resources;
        let memory = running.iter().filter_map(|(other, _)| other.resources.memory).sum::<u64>();
        let has_memory = |need: u64| machine.memory.is_none_or(|all| memory + need <= all);
        if !requested.memory.is_none_or(has_memory) {
            return None;
        }
        let taken = |gpu: &&String| running.iter().any(|(_, allocation)| allocation.gpus.contains(gpu));
        let gpus: Vec<String> = match (requested.gpus, self.cuda.filter(|_| request.is_network)) {
            (Some(count), _) => machine.gpus.iter().filter(|gpu| !taken(gpu)).take(count).cloned().collect(),
            (None, Some(index)) => match machine.gpus.get(index) {
                Some(gpu) if taken(&gpu) => return None,
                gpu => gpu.cloned().into_iter().collect(),
            },
            (None, None) => vec![],
        };
        if requested.gpus.is_some_and(|count| gpus.len() < count) {
            return None;
        }
        let cores_taken = running.iter().filter_map(|(other, _)| other.resources.cpus).sum::<usize>();
        let others = running.iter().filter(|(other, _)| other.resources.cpus.is_none());
        let threads = match requested.cpus {
            Some(cpus) if cores_taken + cpus > machine.cores => return None,
            Some(cpus) => cpus,
            None if requested.gpus.is_some_and(|count| count > 0) => machine.cores / machine.gpus.len().max(1),
            None if !self.has_room(request.is_network, Load::count(others.map(|(other, _)| other.is_network))) => {
                return None;
            }
            None => self.threads(request.is_network, demand, machine.cores.saturating_sub(cores_taken)),
        };
        Some(Allocation { threads: threads.max(1), gpus })
    }

    /// Returns why this machine can never satisfy a request: the name of the field, and the requested and available
    /// amounts. None if it can.
    pub(super) fn unsatisfiable(&self, requested: &Resources) -> Option<(&'static str, String)> {
        let Machine { cores, memory, gpus } = self.machine.as_ref()?;
        let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        let too_many = |field, requested: String, available: String| {
            Some((field, format!("{requested}; this machine has {available}")))
        };
        match requested {
            Resources { cpus: Some(n), .. } if n > cores => too_many("cpus", n.to_string(), cores.to_string()),
            Resources { memory: Some(n), .. } if memory.is_some_and(|all| *n > all) => {
                too_many("memory", gigabytes(*n), gigabytes(memory.unwrap_or(0)))
            }
            Resources { gpus: Some(n), .. } if *n > gpus.len() => {
                too_many("gpus", n.to_string(), gpus.len().to_string())
            }
            _ => None,
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.machine.is_none()
    }

    fn cores(&self) -> usize {
        self.machine.as_ref().map_or(1, |machine| machine.cores)
    }

    fn networks(&self) -> usize {
        match self.jobs {
            Some(jobs) => jobs,
            None if self.cuda.is_some() => 1,
            None => (self.cores() / CORES_PER_NETWORK).max(1),
        }
    }

    /// Whether another stage may start while the current ones run.
    fn has_room(&self, is_network: bool, running: Load) -> bool {
        let stages = self.jobs.unwrap_or(self.cores()).max(1);
        match is_network {
            // Without `--jobs`, short stages never delay a network.
            true => running.networks < self.networks() && (self.jobs.is_none() || running.total() < stages),
            false if self.jobs.is_none() => running.others < stages,
            false => running.total() < stages,
        }
    }

    /// Returns the number of threads for a stage that starts now. `demand` counts the running and ready stages,
    /// including this one.
    fn threads(&self, is_network: bool, demand: Load, cores: usize) -> usize {
        let sharers = match is_network {
            true => demand.networks.min(self.networks()),
            false => demand.total().min(self.jobs.unwrap_or(self.cores())),
        };
        (cores / sharers.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cores: usize, jobs: Option<usize>) -> ResourcePool {
        let memory = Some(16_000_000_000);
        ResourcePool { machine: Some(Machine { cores, memory, gpus: vec![] }), jobs, cuda: None }
    }

    const NETWORK: ResourceRequest =
        ResourceRequest { is_network: true, resources: Resources { cpus: None, memory: None, gpus: None, time: None } };
    const SHORT: ResourceRequest = ResourceRequest { is_network: false, ..NETWORK };

    fn asking(resources: Resources) -> ResourceRequest {
        ResourceRequest { resources, ..NETWORK }
    }

    /// Starts the stages that fit, in order, and returns their allocations.
    fn start(pool: &ResourcePool, requests: &[ResourceRequest]) -> Vec<Allocation> {
        let unspecified = requests.iter().filter(|request| request.resources.cpus.is_none());
        let demand = Load::count(unspecified.map(|request| request.is_network));
        let mut running = vec![];
        for request in requests {
            let allocation = pool.allocate(*request, &running, demand);
            running.extend(allocation.map(|allocation| (*request, allocation)));
        }
        running.into_iter().map(|(_, allocation)| allocation).collect()
    }

    fn threads(pool: &ResourcePool, requests: &[ResourceRequest]) -> Vec<usize> {
        start(pool, requests).iter().map(|allocation| allocation.threads).collect()
    }

    #[test]
    fn networks_share_the_cores() {
        assert_eq!(threads(&pool(2, None), &[NETWORK; 3]), [2]);
        assert_eq!(threads(&pool(2, Some(2)), &[NETWORK; 3]), [1, 1]);
        assert_eq!(threads(&pool(1, Some(3)), &[NETWORK; 3]), [1, 1, 1]);
        assert_eq!(threads(&pool(32, None), &[NETWORK]), [32]);
        assert_eq!(threads(&pool(32, None), &[NETWORK; 9]), [8, 8, 8, 8]);
        assert_eq!(threads(&pool(32, Some(2)), &[NETWORK; 9]), [16, 16]);
        let cuda = ResourcePool { cuda: Some(0), ..pool(32, None) };
        assert_eq!(threads(&cuda, &[NETWORK; 9]), [32]);
    }

    #[test]
    fn short_stages_run_while_a_network_runs() {
        assert_eq!(start(&pool(2, None), &[NETWORK, SHORT, SHORT, SHORT]).len(), 3);
        assert_eq!(start(&pool(2, None), &[SHORT, SHORT, NETWORK]).len(), 3);
        assert_eq!(start(&pool(2, Some(1)), &[NETWORK, SHORT]).len(), 1);
        assert_eq!(start(&pool(2, Some(1)), &[SHORT, NETWORK]).len(), 1);
    }

    #[test]
    fn requests_are_satisfied_while_resources_are_free() {
        let cpus = |n| asking(Resources { cpus: Some(n), ..Resources::default() });
        assert_eq!(threads(&pool(8, None), &[cpus(3), cpus(3), cpus(3), cpus(2)]), [3, 3, 2]);
        assert_eq!(threads(&pool(8, Some(2)), &[cpus(1), cpus(1), cpus(1)]), [1, 1]);
        // Stages that request no cores share the remaining ones.
        assert_eq!(threads(&pool(8, None), &[cpus(3), NETWORK]), [3, 5]);
        let memory =
            |gb: u64| asking(Resources { memory: Some(gb * 1_000_000_000), cpus: Some(1), ..Resources::default() });
        assert_eq!(start(&pool(8, None), &[memory(10), memory(7), memory(6), memory(1)]).len(), 2);
    }

    #[test]
    fn each_gpu_is_allocated_to_one_stage() {
        let machine = Machine { gpus: ["3", "5"].map(str::to_string).into(), ..pool(8, None).machine.unwrap() };
        let gpus = |n| asking(Resources { gpus: Some(n), ..Resources::default() });
        let pool = ResourcePool { machine: Some(machine), jobs: None, cuda: Some(0) };
        let given = |requests: &[ResourceRequest]| {
            start(&pool, requests).into_iter().map(|allocation| allocation.gpus).collect::<Vec<_>>()
        };
        assert_eq!(given(&[gpus(1), gpus(1), gpus(1)]), [["3"], ["5"]]);
        assert_eq!(given(&[gpus(2), gpus(1)]), [["3", "5"]]);
        // A network without a request gets the device of the pipeline.
        assert_eq!(given(&[NETWORK, NETWORK, gpus(1)]), [["3"], ["5"]]);
        assert_eq!(given(&[gpus(1), NETWORK]), [["3"]]);
        assert_eq!(given(&[gpus(0)]), [[] as [&str; 0]]);
    }

    #[test]
    fn requests_beyond_the_machine_are_described() {
        let pool = pool(2, None);
        let requested = Resources { cpus: Some(2), memory: Some(16_000_000_000), gpus: Some(0), time: None };
        assert_eq!(pool.unsatisfiable(&requested), None);
        let why = |requested| pool.unsatisfiable(&requested).unwrap();
        assert_eq!(why(Resources { cpus: Some(3), ..requested }), ("cpus", "3; this machine has 2".into()));
        assert_eq!(
            why(Resources { memory: Some(17_000_000_000), ..requested }),
            ("memory", "17.0 GB; this machine has 16.0 GB".into())
        );
        assert_eq!(why(Resources { gpus: Some(1), ..requested }), ("gpus", "1; this machine has 0".into()));
    }
}
