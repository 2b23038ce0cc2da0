//! What this machine has, and what processes take of it; as far as Linux tells.

use std::fs;

/// What stages share.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub cores: usize,
    /// Bytes; None where the system does not say.
    pub memory: Option<u64>,
    /// Graphics cards, as `CUDA_VISIBLE_DEVICES` names them.
    pub gpus: Vec<String>,
}

impl Machine {
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // The container's limit, where it has one.
        let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        let memory = [total_memory(), limit].into_iter().flatten().min();
        let gpus = match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(text) => text.split(',').map(|id| id.trim().to_string()).filter(|id| !id.is_empty()).collect(),
            Err(_) => {
                let cards = fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, |entries| entries.flatten().count());
                (0..cards).map(|i| i.to_string()).collect()
            }
        };
        Self { cores, memory, gpus }
    }
}

fn total_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// How often the kernel has ended a process because memory ran out. Together with a process that was killed it tells
/// why.
pub fn oom_kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// The resident memory of all processes of these groups, in bytes. Pages that they share count for each.
pub fn memory_of(groups: &[u32]) -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let pages = processes.filter_map(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        // The command's name, in brackets, may hold anything: fields count from the last one.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let group: u32 = fields.nth(2)?.parse().ok()?;
        let pages: u64 = fields.nth(18)?.parse().ok()?;
        groups.contains(&group).then_some(pages)
    });
    pages.sum::<u64>() * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_memory_and_there_is_more() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get().cast_unsigned();
        let taken = memory_of(&[group]);
        assert!(taken > 1 << 20, "{taken}");
        assert!(Machine::here().memory.unwrap() > taken);
        assert_eq!(memory_of(&[]), 0);
    }
}
