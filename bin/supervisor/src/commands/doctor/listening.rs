//! Whether the addresses can be bound, and whose addresses the workers will see there.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;

use config::{ListenAddress, Settings};
use supervise::status::Status;

use super::check::Check;

const ADDRESS: &str = "listen.address";

pub(super) fn examine(settings: &Settings, running: Option<&Status>) -> Vec<Check> {
    let wanted = &settings.supervisor;
    let mut checks: Vec<_> = wanted.listen.iter().map(|address| of_workers(address, running)).collect();
    // What a running supervisor holds besides is not in its status, and most likely this.
    if running.is_none() {
        checks.push(tcp(wanted.admin_listen));
    }
    checks.push(proxies(settings));
    checks
}

fn of_workers(address: &ListenAddress, running: Option<&Status>) -> Check {
    if running.is_some_and(|status| serves(status, address)) {
        return Check::ok(ADDRESS, format!("the running supervisor serves at {address}"));
    }
    match address {
        ListenAddress::Tcp(address) => tcp(*address),
        ListenAddress::Unix(path) => unix(path),
    }
}

/// Whether it holds the address, or a part of it that nobody else could share.
fn serves(status: &Status, address: &ListenAddress) -> bool {
    let bound = &status.supervisor.listen;
    let same_port = |tcp: &SocketAddr| {
        bound.iter().filter_map(|text| text.parse::<SocketAddr>().ok()).any(|bound| bound.port() == tcp.port())
    };
    match address {
        ListenAddress::Tcp(tcp) => same_port(tcp),
        ListenAddress::Unix(_) => bound.contains(&address.to_string()),
    }
}

fn tcp(address: SocketAddr) -> Check {
    let error = match TcpListener::bind(address) {
        Ok(_) => return Check::ok(ADDRESS, format!("{address} is free")),
        Err(error) => error,
    };
    let port = address.port();
    let fix = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("ss -ltnp sport = :{port} names who listens there; --listen takes another address")
        }
        ErrorKind::AddrNotAvailable => "ip address lists the addresses of this machine".to_owned(),
        ErrorKind::PermissionDenied => {
            format!("port {port} needs CAP_NET_BIND_SERVICE, as in the unit that `supervisor service print` prints")
        }
        _ => "choose another address".to_owned(),
    };
    Check::error(ADDRESS, format!("cannot bind {address}: {error}"), fix)
}

fn unix(path: &Path) -> Check {
    let shown = path.display();
    if UnixStream::connect(path).is_ok() {
        return Check::error(ADDRESS, format!("somebody serves at unix:{shown}"), "choose another path");
    }
    match path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) if !directory.is_dir() => {
            let summary = format!("the directory of unix:{shown} does not exist");
            Check::error(ADDRESS, summary, format!("mkdir -p {}", directory.display()))
        }
        _ => Check::ok(ADDRESS, format!("unix:{shown} is free")),
    }
}

/// Who listens on this machine alone is behind a proxy.
fn proxies(settings: &Settings) -> Check {
    const PROXIES: &str = "listen.proxies";
    let is_local = |address: &ListenAddress| match address {
        ListenAddress::Tcp(address) => address.ip().is_loopback(),
        ListenAddress::Unix(_) => true,
    };
    let http = &settings.http;
    if !settings.supervisor.listen.iter().all(is_local) {
        let summary = match http.trusted_proxies.as_slice() {
            [] => "clients connect themselves: no proxy is trusted".to_owned(),
            networks => format!("{} networks are trusted to name clients in {}", networks.len(), http.client_ip_header),
        };
        return Check::ok(PROXIES, summary);
    }
    if !http.trusted_proxies.is_empty() {
        return Check::ok(PROXIES, format!("the proxy names clients in {}", http.client_ip_header));
    }
    Check::warning(
        PROXIES,
        "only this machine can connect and no proxy is trusted: all clients have the proxy's address, and one limit between them",
        "behind a proxy: http.trusted_proxies = [\"127.0.0.1\", \"::1\"]",
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::Severity;
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_an_error_and_a_free_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = tcp(address);
        assert_eq!(taken.severity, Severity::Error);
        assert!(taken.fix.unwrap().contains(&format!(":{}", address.port())));
        drop(listener);
        assert_eq!(tcp(address).severity, Severity::Ok);
    }

    #[test]
    fn a_unix_socket_needs_its_directory_and_nobody_who_serves_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.sock");
        assert_eq!(unix(&path).severity, Severity::Ok);
        assert_eq!(unix(&directory.path().join("none/http.sock")).severity, Severity::Error);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(unix(&path).severity, Severity::Error);
        drop(listener);
        assert_eq!(unix(&path).severity, Severity::Ok, "what a dead process left is replaced");
    }

    #[test]
    fn loopback_alone_without_a_trusted_proxy_is_a_warning() {
        let severity = |listen: &[&str], is_trusting: bool| {
            let mut settings = Settings::default();
            settings.supervisor.listen = listen.iter().map(|address| address.parse().unwrap()).collect();
            if is_trusting {
                let loaded = config::load(&config::Sources {
                    environment: vec![("TRUSTED_PROXIES".to_owned(), "127.0.0.1".to_owned())],
                    ..config::Sources::default()
                });
                settings.http = loaded.unwrap().settings.http;
            }
            proxies(&settings).severity
        };
        assert_eq!(severity(&["127.0.0.1:80"], false), Severity::Warning);
        assert_eq!(severity(&["unix:/run/a.sock", "[::1]:80"], false), Severity::Warning);
        assert_eq!(severity(&["127.0.0.1:80"], true), Severity::Ok);
        assert_eq!(severity(&["127.0.0.1:80", "0.0.0.0:80"], false), Severity::Ok);
    }
}
