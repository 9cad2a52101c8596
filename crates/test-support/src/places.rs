//! Where private servers live: ports, directories and names that nobody else uses.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// A TCP port of the loopback address that nobody listens on now, another one each time.
///
/// It lies below the kernel's range for outgoing connections and for port 0, so that nothing but another caller of this
/// function is likely to take it, also while the server on it is being restarted. Whoever binds it still has to be ready to try
/// another one.
///
/// # Panics
/// When two hundred ports in a row are taken.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    for _ in 0..200 {
        let port = fastrand::u16(15_000..32_000);
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && given.get_or_insert_default().insert(port) {
            return port;
        }
    }
    panic!("no free TCP port between 15000 and 32000 on 127.0.0.1");
}

/// A prefix for keys and names that no other test, of this process or another, uses.
pub fn unique_prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("t{}x{number}x{:04x}", std::process::id(), fastrand::u16(..))
}

/// The longest directory in which unix sockets still have room for a name: their paths end at 107 bytes.
const LONGEST_DIRECTORY: usize = 70;

/// A temporary directory whose path is short enough for unix sockets.
pub(crate) fn short_temp_dir(prefix: &str) -> TempDir {
    let preferred = std::env::temp_dir();
    let parent = if preferred.as_os_str().len() > LONGEST_DIRECTORY { Path::new("/tmp") } else { &preferred };
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .unwrap_or_else(|error| panic!("cannot create a temporary directory in {}: {error}", parent.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_never_repeat() {
        let prefixes: HashSet<String> = (0..1_000).map(|_| unique_prefix()).collect();
        assert_eq!(prefixes.len(), 1_000);
    }

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port was free a moment ago");
    }

    #[test]
    fn a_free_port_is_given_once() {
        let ports: HashSet<u16> = (0..500).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 500);
    }
}
