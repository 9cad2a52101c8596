//! Binding processes to processors.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The numbers of the processors this process may use, ascending; empty when the system does not tell.
pub fn cpus() -> Vec<usize> {
    let Ok(usable) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&cpu| usable.is_set(cpu).unwrap_or(false)).collect()
}

/// The processor of the worker in `slot`: the slots go around all of `cpus`.
pub fn cpu_of(slot: u32, cpus: &[usize]) -> Option<usize> {
    let index = (slot as usize).checked_rem(cpus.len())?;
    cpus.get(index).copied()
}

/// Binds process `pid` to processor `cpu`. Threads it has already keep theirs, so call it right after the fork.
pub fn pin(pid: i32, cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(pid), &only)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn slots_go_around_the_processors() {
        let cpus = [2, 5, 7];
        let chosen: Vec<_> = (0..5).map(|slot| cpu_of(slot, &cpus)).collect();
        assert_eq!(chosen, [Some(2), Some(5), Some(7), Some(2), Some(5)]);
        assert_eq!(cpu_of(0, &[]), None);
    }

    #[test]
    fn a_process_is_bound_to_the_processor() {
        let last = *cpus().last().unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        pin(child.id() as i32, last).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{last}\n")), "{status}");
    }

    #[test]
    fn a_processor_that_does_not_exist_is_refused() {
        assert!(pin(0, CpuSet::count()).is_err());
    }
}
