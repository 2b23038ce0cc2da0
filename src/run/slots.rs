//! How many stages run at once, and on how many threads. Results depend on neither.
//!
//! A stage that runs a network uses as many cores as it gets, to good effect up to about [`CORES_A_NETWORK`]. So cores
//! are filled with few networks on many threads: results come one after the other, the first one early, in the memory
//! of one. Other stages are short, and run beside. Where the user says `--jobs`, that many stages run at once and share
//! the cores.

/// More threads than this gain a network of our size little.
const CORES_A_NETWORK: usize = 8;

/// The places that stages run in.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    pub cores: usize,
    /// As the user says it.
    pub jobs: Option<usize>,
    /// Networks run on one CUDA device, which is shared by time, and so to nobody's gain.
    pub cuda: bool,
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

impl Slots {
    fn networks(&self) -> usize {
        match self.jobs {
            Some(jobs) => jobs,
            None if self.cuda => 1,
            None => (self.cores / CORES_A_NETWORK).max(1),
        }
    }

    /// Whether another stage may start beside those that run.
    pub fn has_place(&self, network: bool, running: Load) -> bool {
        let stages = self.jobs.unwrap_or(self.cores).max(1);
        match network {
            // Without `--jobs`, short stages never hold up a network.
            true => running.networks < self.networks() && (self.jobs.is_none() || running.total() < stages),
            false if self.jobs.is_none() => running.others < stages,
            false => running.total() < stages,
        }
    }

    /// The threads of a stage that starts now, when `wanting` is what runs or could, itself among them.
    pub fn threads(&self, network: bool, wanting: Load) -> usize {
        let sharers = match network {
            true => wanting.networks.min(self.networks()),
            false => wanting.total().min(self.jobs.unwrap_or(self.cores)),
        };
        (self.cores / sharers.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts networks as long as there is place, and says on how many threads each.
    fn start(slots: Slots, ready: usize) -> Vec<usize> {
        let wanting = Load { networks: ready, others: 0 };
        (0..ready)
            .take_while(|&running| slots.has_place(true, Load { networks: running, others: 0 }))
            .map(|_| slots.threads(true, wanting))
            .collect()
    }

    #[test]
    fn networks_share_the_cores() {
        let slots = |cores, jobs| Slots { cores, jobs, cuda: false };
        assert_eq!(start(slots(2, None), 3), [2]);
        assert_eq!(start(slots(2, Some(2)), 3), [1, 1]);
        assert_eq!(start(slots(1, Some(3)), 3), [1, 1, 1]);
        assert_eq!(start(slots(32, None), 1), [32]);
        assert_eq!(start(slots(32, None), 9), [8, 8, 8, 8]);
        assert_eq!(start(slots(32, Some(2)), 9), [16, 16]);
        assert_eq!(start(Slots { cores: 32, jobs: None, cuda: true }, 9), [32]);
    }

    #[test]
    fn short_stages_run_beside_a_network() {
        let slots = Slots { cores: 2, jobs: None, cuda: false };
        assert!(slots.has_place(false, Load { networks: 1, others: 1 }));
        assert!(!slots.has_place(false, Load { networks: 1, others: 2 }));
        assert!(slots.has_place(true, Load { networks: 0, others: 2 }));
        assert_eq!(slots.threads(false, Load { networks: 1, others: 1 }), 1);
        let one = Slots { jobs: Some(1), ..slots };
        assert!(!one.has_place(false, Load { networks: 1, others: 0 }));
        assert!(!one.has_place(true, Load { networks: 0, others: 1 }));
    }
}
