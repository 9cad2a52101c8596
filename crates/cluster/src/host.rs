//! What tells one supervisor from another, on any machine.

use std::{fmt, fs, os::unix::process::parent_id, str::FromStr};

use xxhash_rust::xxh3::xxh3_64;

/// The kernel draws it anew with every boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Containers of one machine share its boot, and each may have a process of any number.
const PROCESS_NAMESPACE: &str = "/proc/self/ns/pid";

/// A supervisor: a boot of a machine, a namespace of processes, and a process. Eight bytes that are no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub u64);

impl Host {
    /// That of the supervisor which is this process's parent. What the kernel does not tell is left out.
    pub fn of_this_process() -> Self {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let namespace = fs::read_link(PROCESS_NAMESPACE).unwrap_or_default();
        Self(xxh3_64(format!("{}\n{}\n{}", boot.trim(), namespace.display(), parent_id()).as_bytes()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl FromStr for Host {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_written_so = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| is_written_so).map(Self).ok_or(())
    }
}
