//! What `/proc` knows about a process: processor time and memory, and whether the kernel ran out of the latter.

use std::fs;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::child::sys;

/// Samples one process; a share of processor time needs two.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProcessSampler {
    last: Option<Sample>,
    usage: Usage,
}

/// Processor seconds used by a moment.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Sample {
    #[serde(with = "crate::handover::moment")]
    at: Instant,
    cpu_seconds: f64,
}

/// What a process uses; unknown until it was sampled.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) rss_bytes: Option<u64>,
}

impl ProcessSampler {
    /// Reads `/proc/<pid>/stat`.
    pub(crate) fn sample(&mut self, pid: i32, now: Instant) {
        let Some((cpu_seconds, rss_bytes)) = read(pid) else { return };
        self.usage.rss_bytes = Some(rss_bytes);
        if let Some(before) = self.last {
            let elapsed = now.saturating_duration_since(before.at).as_secs_f64();
            if elapsed > 0.0 {
                self.usage.cpu_percent = Some((cpu_seconds - before.cpu_seconds).max(0.0) / elapsed * 100.0);
            }
        }
        self.last = Some(Sample { at: now, cpu_seconds });
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }
}

/// How many processes the kernel has killed for want of memory since it was started.
pub(crate) fn out_of_memory_kills() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

/// Whether a process exists and is more than a zombie.
pub(crate) fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X'])))
}

/// Processor seconds used so far and resident bytes.
fn read(pid: i32) -> Option<(f64, u64)> {
    let (ticks_per_second, page_bytes) = sys::proc_units();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from behind it; the next field is number 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)?;
    Some((ticks as f64 / ticks_per_second, number(24)? * page_bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn this_process_uses_memory_and_processor_time() {
        let mut sampler = ProcessSampler::default();
        let own_pid = std::process::id() as i32;
        sampler.sample(own_pid, Instant::now());
        assert!(sampler.usage().rss_bytes.is_some_and(|bytes| bytes > 100_000), "{:?}", sampler.usage());
        assert_eq!(sampler.usage().cpu_percent, None, "one sample tells nothing about a rate");
        sampler.sample(own_pid, Instant::now() + Duration::from_secs(1));
        assert!(sampler.usage().cpu_percent.is_some());
    }

    #[test]
    fn the_kernel_counts_its_kills() {
        assert!(out_of_memory_kills().is_some());
    }
}
