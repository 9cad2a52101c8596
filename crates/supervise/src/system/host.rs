//! The machine a supervisor runs on, as `status` shows it.

use std::path::Path;
use std::{fs, io, thread};

use crate::status::HostStatus;

/// The machine. Its name and processors are looked up once; a change shows after the next start.
#[derive(Debug)]
pub struct Host {
    name: String,
    cpus: u32,
}

impl Host {
    /// The machine this process runs on.
    pub fn of_this_process() -> Self {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let cpus = thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
        Self { name: name.trim_end().to_owned(), cpus }
    }

    /// What it is and how busy it is now, from memory and `/proc`.
    pub fn status(&self) -> HostStatus {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        HostStatus {
            name: self.name.clone(),
            cpus: self.cpus,
            load: load_averages(&load),
            memory_bytes: memory_bytes(&memory, "MemTotal:"),
            memory_available_bytes: memory_bytes(&memory, "MemAvailable:"),
        }
    }
}

/// The first three numbers of `/proc/loadavg`.
fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// One row of `/proc/meminfo`, which counts in KiB whatever it says.
fn memory_bytes(text: &str, row: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(row))?;
    let kibibytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// How much this process may still write to the file system that `path` is on.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let system = nix::sys::statvfs::statvfs(path)?;
    Ok(system.blocks_available() * system.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_and_memory_are_read_from_the_kernels_text() {
        assert_eq!(load_averages("0.50 1.25 12.00 2/345 6789\n"), Some([0.5, 1.25, 12.0]));
        let memory = "MemTotal:       24597000 kB\nMemFree:          100 kB\nMemAvailable:   23000 kB\n";
        assert_eq!(memory_bytes(memory, "MemTotal:"), Some(24_597_000 * 1024));
        assert_eq!(memory_bytes(memory, "MemAvailable:"), Some(23_000 * 1024));
    }

    #[test]
    fn what_cannot_be_read_is_unknown_rather_than_zero() {
        for text in ["", "0.5", "0.5 1.0 much"] {
            assert_eq!(load_averages(text), None, "{text}");
        }
        for text in ["", "MemTotal:", "MemTotal: much kB", "MemTotal: 99999999999999999999 kB"] {
            assert_eq!(memory_bytes(text, "MemTotal:"), None, "{text}");
        }
    }

    #[test]
    fn a_file_system_says_how_much_room_it_has() {
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
        assert_eq!(free_bytes(Path::new("/proc")).unwrap(), 0, "nothing can be stored there");
    }

    #[test]
    fn this_machine_has_a_name_processors_and_memory() {
        let status = Host::of_this_process().status();
        assert!(!status.name.is_empty() && status.cpus >= 1, "{status:?}");
        assert!(status.load.is_some() && status.memory_bytes >= status.memory_available_bytes, "{status:?}");
        assert!(status.memory_available_bytes.is_some(), "{status:?}");
    }
}
