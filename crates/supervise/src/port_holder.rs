//! Finds out who listens on an address that is taken, from `/proc`; best effort.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Who listens on the port of `address`, as `nginx (pid 7)`.
pub(crate) fn of_tcp(address: SocketAddr) -> Option<String> {
    let suffix = format!(":{:04X}", address.port());
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inodes: Vec<String> = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next()?;
            let state = fields.nth(1)?;
            let inode = fields.nth(5)?;
            (local.ends_with(&suffix) && state == LISTENING).then(|| inode.to_owned())
        })
        .collect();
    holder(&inodes)
}

/// Who listens on the unix socket at `path`.
pub(crate) fn of_unix(path: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let path = format!(" {}", path.to_str()?);
    let inodes: Vec<String> = table
        .lines()
        .filter_map(|line| line.ends_with(&path).then(|| line.split_whitespace().nth(6).map(str::to_owned))?)
        .collect();
    holder(&inodes)
}

/// The first process that has one of the sockets open, which is the parent where children inherited it.
fn holder(inodes: &[String]) -> Option<String> {
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let mut pids: Vec<i32> =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| has_open(*pid, &links))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (pid {pid})", name.trim_end()))
}

fn has_open(pid: i32, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.filter_map(Result::ok).any(|descriptor| {
        fs::read_link(descriptor.path())
            .is_ok_and(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_process_that_listens_is_named_with_its_id() {
        let own = format!("(pid {})", std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of_tcp(listener.local_addr().unwrap()).expect("this process listens");
        assert!(holder.ends_with(&own), "{holder}");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a b.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let holder = of_unix(&path).expect("this process listens");
        assert!(holder.ends_with(&own), "{holder}");
    }

    #[test]
    fn nobody_is_named_for_a_port_nobody_listens_on() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(of_tcp(address), None);
    }
}
