//! What `/proc` tells about other processes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Whether the process exists and is more than a zombie.
pub fn is_alive(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// The state letter of `ps`: `R`, `S`, `D`, `T` (stopped), `Z` (zombie); `None` when there is no such process.
pub fn state(pid: u32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Parent of a process.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The children a process has now, zombies included, in order of their ids.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found: Vec<u32> = all().filter(|&other| parent(other) == Some(pid)).collect();
    found.sort_unstable();
    found
}

/// Children, their children and so on.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut next = 0;
    while let Some(&child) = found.get(next) {
        found.extend(children(child));
        next += 1;
    }
    found
}

/// Resident memory in bytes; 0 when the process is gone.
pub fn rss_bytes(pid: u32) -> u64 {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return 0;
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Number of open descriptors; 0 when the process is gone.
pub fn open_descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Number of threads; 0 when the process is gone.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// User and system time that the process has used, in steps of a clock tick (10 ms as a rule).
pub fn cpu_time(pid: u32) -> Duration {
    let Some(stat) = stat(pid) else {
        return Duration::ZERO;
    };
    let ticks = |field: usize| stat.get(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let per_second =
        sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hertz| u64::try_from(hertz).ok()).unwrap_or(100);
    // Fields 14 and 15 of proc(5); `stat` starts at field 3.
    Duration::from_nanos((ticks(11) + ticks(12)) * 1_000_000_000 / per_second)
}

/// The file a process executes; `None` when it is gone, or another user's.
pub fn executable(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The environment the process was started with, `NAME=value` each.
pub fn environment(pid: u32) -> Vec<String> {
    let raw = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    raw.split(|&byte| byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|entry| String::from_utf8_lossy(entry).into_owned())
        .collect()
}

/// The inodes of all sockets that listen at a TCP address of IPv4, whoever holds them.
pub fn listening_sockets(address: SocketAddr) -> BTreeSet<u64> {
    let port = format!(":{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    // Local address, state (0A is LISTEN) and inode, as in proc(5).
    rows.filter(|row| row.len() > 9 && row[1].ends_with(&port) && row[3] == "0A")
        .filter_map(|row| row[9].parse().ok())
        .collect()
}

/// Sends a signal; whether there was a process to take it.
pub fn signal(pid: u32, signal: Signal) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

/// The ids of all processes.
fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted on Linux");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/<pid>/stat` from the third on: the second, the name, may contain anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Sends bytes with a descriptor that comes along (`SCM_RIGHTS`), as a supervisor sends to its worker.
///
/// # Errors
/// The operating system's, and when not everything was taken at once.
pub fn send_with_descriptor(channel: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let sent = sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GuardedChild;

    #[test]
    fn this_process_has_memory_descriptors_and_children() {
        let me = std::process::id();
        let child = GuardedChild::spawn(std::process::Command::new("sleep").arg("1000")).unwrap();
        assert!(is_alive(me));
        assert!(rss_bytes(me) > 1_000_000);
        assert!(open_descriptors(me) > 2);
        assert!(threads(me) > 0);
        assert!(children(me).contains(&child.pid()));
        assert!(descendants(parent(me).unwrap()).contains(&child.pid()));
        assert!(!environment(me).is_empty());
        assert_eq!(executable(me), std::env::current_exe().ok());
    }

    #[test]
    fn sockets_that_listen_are_counted_and_connections_are_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _connection = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(listening_sockets(address).len(), 1);
        drop(listener);
        assert!(listening_sockets(address).is_empty());
    }

    #[test]
    fn a_process_that_never_was_has_nothing() {
        let nobody = u32::MAX;
        assert!(!is_alive(nobody));
        assert_eq!(rss_bytes(nobody), 0);
        assert_eq!(cpu_time(nobody), Duration::ZERO);
        assert!(!signal(nobody, Signal::SIGTERM));
    }

    #[test]
    fn burning_cpu_shows() {
        let me = std::process::id();
        let before = cpu_time(me);
        crate::eventually(Duration::from_secs(10), || {
            std::hint::black_box((0..1_000_000_u64).fold(0, |sum, number| sum ^ number));
            cpu_time(me) > before
        });
    }
}
