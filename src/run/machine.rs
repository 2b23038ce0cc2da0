//! The resources of this machine and their use, as far as Linux reports them.

use std::fs;
use std::process::{Command, Stdio};

use crate::{runs, store};

/// The resources of a machine.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub(super) cores: usize,
    /// In bytes; None if the system does not report it.
    pub(super) memory: Option<u64>,
    /// GPUs, as `CUDA_VISIBLE_DEVICES` names them.
    pub(super) gpus: Vec<String>,
}

impl Machine {
    /// Returns the resources of this machine, or of the container that this process runs in.
    pub fn detect() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // The limit of the container, if any.
        let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        let memory = [total_memory(), limit].into_iter().flatten().min();
        let gpus = match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(text) => visible_gpus(&text),
            Err(_) => (0..count_gpus()).map(|i| i.to_string()).collect(),
        };
        Self { cores, memory, gpus }
    }

    /// Returns the description for the record of a run.
    pub(super) fn to_record(&self) -> runs::HostInfo {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        runs::HostInfo {
            host: store::host(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: model.map(|(_, name)| name.trim().to_string()).unwrap_or_default(),
            cores: self.cores,
            memory: self.memory,
        }
    }
}

/// Parses `CUDA_VISIBLE_DEVICES`: the ids before the first invalid one (such as -1).
fn visible_gpus(text: &str) -> Vec<String> {
    let ids = text.split(',').map(|id| id.trim().to_string());
    ids.take_while(|id| !id.is_empty() && !id.starts_with('-')).collect()
}

/// Counts GPUs in the driver's list in `/proc`, or with `nvidia-smi` if that is not visible, as in some containers.
fn count_gpus() -> usize {
    if let Ok(entries) = fs::read_dir("/proc/driver/nvidia/gpus") {
        return entries.flatten().count();
    }
    let output = Command::new("nvidia-smi").arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map_or(0, |output| listed_gpus(&String::from_utf8_lossy(&output.stdout)))
}

/// Counts lines such as "GPU 0: NVIDIA H100 (UUID: GPU-…)".
fn listed_gpus(text: &str) -> usize {
    let is_gpu = |line: &&str| {
        let number = line.strip_prefix("GPU ").and_then(|rest| rest.split_once(':'));
        number.is_some_and(|(number, _)| number.parse::<u32>().is_ok())
    };
    text.lines().filter(is_gpu).count()
}

fn total_memory() -> Option<u64> {
    meminfo("MemTotal:")
}

/// Returns the memory that a process can allocate now, in bytes: the minimum over the machine, the container and the
/// limit on the address space.
pub fn available_memory() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // The page cache is released when memory is needed.
    let stat = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok()).unwrap_or(0);
    let cgroup = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    let cgroup = cgroup.map(|(limit, used)| limit.saturating_sub(used.saturating_sub(files)));
    let address_space = rustix::process::getrlimit(rustix::process::Resource::As).current;
    [meminfo("MemAvailable:"), cgroup, address_space].into_iter().flatten().min()
}

fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Returns how often the kernel has killed a process because memory ran out. If the number has grown when a process was
/// killed, that was the reason.
pub(super) fn oom_kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_list_gpus_are_counted() {
        let text = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-7b)\n  MIG 1g.10gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA L4 (x)\n";
        assert_eq!(listed_gpus(text), 2);
        for text in
            ["", "compute_cap\n9.0\n", "NVIDIA-SMI has failed because it couldn't communicate with the driver.\n"]
        {
            assert_eq!(listed_gpus(text), 0, "{text}");
        }
    }

    #[test]
    fn the_first_invalid_id_ends_the_list() {
        for (text, gpus) in [("", 0), ("-1", 0), ("0, 2", 2), ("3,-1,2", 1), ("GPU-7b,MIG-1", 2), ("0,,1", 1)] {
            assert_eq!(visible_gpus(text).len(), gpus, "{text}");
        }
    }
}
