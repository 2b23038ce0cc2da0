//! How many stages run at once, and on how many threads. Results depend on neither.
//!
//! A stage that runs a network uses as many cores as it gets, to good effect up to about [`CORES_A_NETWORK`]. So cores
//! are filled with few networks on many threads: results come one after the other, the first one early, in the memory
//! of one. Other stages are short, and run beside. Where the user says `--jobs`, that many stages run at once and share
//! the cores.
//!
//! A stage that says what it needs (`resources`) starts when that is free, and gets just that.

use super::machine::Machine;
use crate::config::Resources;

/// More threads than this gain a network of our size little.
const CORES_A_NETWORK: usize = 8;

/// The allocations that stages run in.
#[derive(Debug, Clone, Default)]
pub struct ResourcePool {
    /// None for a cluster, which has a queue of its own.
    pub machine: Option<Machine>,
    /// As the user says it.
    pub jobs: Option<usize>,
    /// Networks run on this CUDA device, which is shared by time, and so to nobody's gain.
    pub cuda: Option<usize>,
}

/// What a stage needs.
#[derive(Debug, Clone, Copy)]
pub struct ResourceRequest {
    pub network: bool,
    pub resources: Resources,
}

/// What a stage gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    pub threads: usize,
    /// As `CUDA_VISIBLE_DEVICES` names them.
    pub gpus: Vec<String>,
}

/// Stages by what they need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub networks: usize,
    pub others: usize,
}

impl Load {
    pub fn count(networks: impl Iterator<Item = bool>) -> Self {
        networks.fold(Self::default(), |load, network| {
            let (networks, others) = if network { (1, 0) } else { (0, 1) };
            Self { networks: load.networks + networks, others: load.others + others }
        })
    }

    fn total(self) -> usize {
        self.networks + self.others
    }
}

impl ResourcePool {
    /// A allocation for a stage beside those that run; None where it must wait. `wanting` is what runs or could without
    /// saying how many cores it needs, itself among them.
    pub fn allocate(
        &self,
        request: ResourceRequest,
        running: &[(ResourceRequest, Allocation)],
        wanting: Load,
    ) -> Option<Allocation> {
        if self.jobs.is_some_and(|jobs| running.len() >= jobs) {
            return None;
        }
        let Some(machine) = &self.machine else { return Some(Allocation { threads: 1, gpus: vec![] }) };
        let asked = request.resources;
        let memory = running.iter().filter_map(|(other, _)| other.resources.memory).sum::<u64>();
        let has_memory = |need: u64| machine.memory.is_none_or(|all| memory + need <= all);
        if !asked.memory.is_none_or(has_memory) {
            return None;
        }
        let taken = |gpu: &&String| running.iter().any(|(_, allocation)| allocation.gpus.contains(gpu));
        let gpus: Vec<String> = match (asked.gpus, self.cuda.filter(|_| request.network)) {
            (Some(count), _) => machine.gpus.iter().filter(|gpu| !taken(gpu)).take(count).cloned().collect(),
            (None, Some(index)) => match machine.gpus.get(index) {
                Some(gpu) if taken(&gpu) => return None,
                gpu => gpu.cloned().into_iter().collect(),
            },
            (None, None) => vec![],
        };
        if asked.gpus.is_some_and(|count| gpus.len() < count) {
            return None;
        }
        let cores_taken = running.iter().filter_map(|(other, _)| other.resources.cpus).sum::<usize>();
        let others = running.iter().filter(|(other, _)| other.resources.cpus.is_none());
        let threads = match asked.cpus {
            Some(cpus) if cores_taken + cpus > machine.cores => return None,
            Some(cpus) => cpus,
            None if asked.gpus.is_some_and(|count| count > 0) => machine.cores / machine.gpus.len().max(1),
            None if !self.has_place(request.network, Load::count(others.map(|(other, _)| other.network))) => {
                return None;
            }
            None => self.threads(request.network, wanting, machine.cores.saturating_sub(cores_taken)),
        };
        Some(Allocation { threads: threads.max(1), gpus })
    }

    /// Why this machine can never give what is asked for: the field, what is asked and what there is.
    pub fn never(&self, asked: &Resources) -> Option<(&'static str, String)> {
        let Machine { cores, memory, gpus } = self.machine.as_ref()?;
        let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        let too_many =
            |field, asked: String, there: String| Some((field, format!("{asked}; this machine has {there}")));
        match asked {
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

    pub fn is_cluster(&self) -> bool {
        self.machine.is_none()
    }

    fn cores(&self) -> usize {
        self.machine.as_ref().map_or(1, |machine| machine.cores)
    }

    fn networks(&self) -> usize {
        match self.jobs {
            Some(jobs) => jobs,
            None if self.cuda.is_some() => 1,
            None => (self.cores() / CORES_A_NETWORK).max(1),
        }
    }

    /// Whether another stage may start beside those that run.
    fn has_place(&self, network: bool, running: Load) -> bool {
        let stages = self.jobs.unwrap_or(self.cores()).max(1);
        match network {
            // Without `--jobs`, short stages never hold up a network.
            true => running.networks < self.networks() && (self.jobs.is_none() || running.total() < stages),
            false if self.jobs.is_none() => running.others < stages,
            false => running.total() < stages,
        }
    }

    /// The threads of a stage that starts now, when `wanting` is what runs or could, itself among them.
    fn threads(&self, network: bool, wanting: Load, cores: usize) -> usize {
        let sharers = match network {
            true => wanting.networks.min(self.networks()),
            false => wanting.total().min(self.jobs.unwrap_or(self.cores())),
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
        ResourceRequest { network: true, resources: Resources { cpus: None, memory: None, gpus: None, time: None } };
    const SHORT: ResourceRequest = ResourceRequest { network: false, ..NETWORK };

    fn asking(resources: Resources) -> ResourceRequest {
        ResourceRequest { resources, ..NETWORK }
    }

    /// Starts what there is allocation for, in order, and gives the allocations of those that start.
    fn start(pool: &ResourcePool, requests: &[ResourceRequest]) -> Vec<Allocation> {
        let unspecified = requests.iter().filter(|request| request.resources.cpus.is_none());
        let wanting = Load::count(unspecified.map(|request| request.network));
        let mut running = vec![];
        for request in requests {
            let allocation = pool.allocate(*request, &running, wanting);
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
    fn short_stages_run_beside_a_network() {
        assert_eq!(start(&pool(2, None), &[NETWORK, SHORT, SHORT, SHORT]).len(), 3);
        assert_eq!(start(&pool(2, None), &[SHORT, SHORT, NETWORK]).len(), 3);
        assert_eq!(start(&pool(2, Some(1)), &[NETWORK, SHORT]).len(), 1);
        assert_eq!(start(&pool(2, Some(1)), &[SHORT, NETWORK]).len(), 1);
    }

    #[test]
    fn what_is_asked_for_is_given_as_long_as_there_is_some() {
        let cpus = |n| asking(Resources { cpus: Some(n), ..Resources::default() });
        assert_eq!(threads(&pool(8, None), &[cpus(3), cpus(3), cpus(3), cpus(2)]), [3, 3, 2]);
        assert_eq!(threads(&pool(8, Some(2)), &[cpus(1), cpus(1), cpus(1)]), [1, 1]);
        // What says nothing shares the rest.
        assert_eq!(threads(&pool(8, None), &[cpus(3), NETWORK]), [3, 5]);
        let memory =
            |gb: u64| asking(Resources { memory: Some(gb * 1_000_000_000), cpus: Some(1), ..Resources::default() });
        assert_eq!(start(&pool(8, None), &[memory(10), memory(7), memory(6), memory(1)]).len(), 2);
    }

    #[test]
    fn graphics_cards_are_handed_out() {
        let machine = Machine { gpus: ["3", "5"].map(str::to_string).into(), ..pool(8, None).machine.unwrap() };
        let gpus = |n| asking(Resources { gpus: Some(n), ..Resources::default() });
        let pool = ResourcePool { machine: Some(machine), jobs: None, cuda: Some(0) };
        let given = |requests: &[ResourceRequest]| {
            start(&pool, requests).into_iter().map(|allocation| allocation.gpus).collect::<Vec<_>>()
        };
        assert_eq!(given(&[gpus(1), gpus(1), gpus(1)]), [["3"], ["5"]]);
        assert_eq!(given(&[gpus(2), gpus(1)]), [["3", "5"]]);
        // A network that says nothing has the device of the pipeline.
        assert_eq!(given(&[NETWORK, NETWORK, gpus(1)]), [["3"], ["5"]]);
        assert_eq!(given(&[gpus(1), NETWORK]), [["3"]]);
        assert_eq!(given(&[gpus(0)]), [[] as [&str; 0]]);
    }

    #[test]
    fn what_can_never_be_given_is_said() {
        let pool = pool(2, None);
        let asked = Resources { cpus: Some(2), memory: Some(16_000_000_000), gpus: Some(0), time: None };
        assert_eq!(pool.never(&asked), None);
        let never = |asked| pool.never(&asked).unwrap();
        assert_eq!(never(Resources { cpus: Some(3), ..asked }), ("cpus", "3; this machine has 2".into()));
        assert_eq!(
            never(Resources { memory: Some(17_000_000_000), ..asked }),
            ("memory", "17.0 GB; this machine has 16.0 GB".into())
        );
        assert_eq!(never(Resources { gpus: Some(1), ..asked }), ("gpus", "1; this machine has 0".into()));
    }
}
