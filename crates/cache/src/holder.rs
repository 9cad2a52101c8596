//! Who holds a lease, named so that others on its host can tell whether it still lives: a lease of a process that was killed is
//! taken over at the next look, in a quarter of a second, and not when it ends (trap T8).
//!
//! No message is needed for that, and none can be lost: the kernel knows. Processes of other hosts are not judged, nor those of other
//! users, whom the kernel may hide (hidepid, see proc(5)).

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use xxhash_rust::xxh3::xxh3_64;

/// The name of this process and of one cache in it.
#[derive(Debug)]
pub(crate) struct Holder {
    name: String,
    /// What processes share that see one another under the same number: the boot, the namespace of process ids, and the user.
    host: String,
}

impl Holder {
    /// `identity` tells several caches of one process apart.
    pub(crate) fn of_this_process(identity: u64) -> Self {
        let pid = std::process::id();
        // Whoever cannot see even itself is judged by nobody, and judges nobody.
        let (host, started) = match (host(), started(pid)) {
            (Some(host), Ok(Some(started))) => (host, started),
            _ => (format!("?{identity:x}"), String::new()),
        };
        Self { name: format!("{host}:{pid}:{started}:{identity:x}"), host }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process that took this name has certainly ended.
    pub(crate) fn has_ended(&self, name: &str) -> bool {
        let mut parts = name.split(':');
        let (Some(host), Some(pid), Some(began)) = (parts.next(), parts.next(), parts.next()) else { return false };
        let Ok(pid) = pid.parse() else { return false };
        if host != self.host {
            return false;
        }
        match started(pid) {
            // Another process has its number now, or it has only not been buried yet.
            Ok(Some(started)) => started != began,
            Ok(None) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

fn host() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let user = fs::metadata("/proc/self").ok()?.uid();
    Some(format!("{:x}", xxh3_64(format!("{boot}{}{user}", namespace.display()).as_bytes())))
}

/// When a process was started, in the kernel's ticks; `None` for one that is dead and not buried yet. See proc(5).
fn started(pid: u32) -> io::Result<Option<String>> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    // The name in parentheses may hold anything, so fields are counted from its end: state is the third, the start the 22nd.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = fields.split_ascii_whitespace();
    let is_dead = matches!(fields.next(), Some("Z" | "X"));
    if is_dead {
        return Ok(None);
    }
    let start = fields.nth(18).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(start.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_what_has_certainly_ended_is_said_to() {
        let us = Holder::of_this_process(7);
        assert!(!us.has_ended(us.name()));
        assert!(!us.has_ended(Holder::of_this_process(8).name()), "another cache of this process");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let started = started(child.id()).unwrap().unwrap();
        let name = |host: &str, started: &str| format!("{host}:{}:{started}:9", child.id());
        let (theirs, elsewhere) = (name(&us.host, &started), name("elsewhere", &started));
        assert!(!us.has_ended(&theirs));
        assert!(us.has_ended(&name(&us.host, "1")), "its number belongs to another process now");
        child.kill().unwrap();
        // Dead at once, also before it is buried.
        while !us.has_ended(&theirs) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(us.has_ended(&theirs));
        assert!(!us.has_ended(&elsewhere), "nobody knows");
        for foreign in ["", "1234", &format!("{}:x:1:1", us.host), "a:b"] {
            assert!(!us.has_ended(foreign), "{foreign:?}");
        }
    }
}
