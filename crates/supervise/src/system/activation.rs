//! Socket activation: listening sockets that the service manager has bound and hands over.

use std::env;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt, sockopt};

use crate::Error;
use crate::child::sys;
use crate::worker_side::claim_inheritance;

/// Descriptors begin here, as systemd has it.
const FIRST_DESCRIPTOR: RawFd = 3;

/// A socket that was bound by the service manager and listens, so that connections queue before and after this process.
///
/// It cannot be sharded: nothing tells how many sockets share its address.
#[derive(Debug)]
pub struct ActivatedSocket {
    /// A TCP or unix stream socket; closed on exec.
    pub descriptor: OwnedFd,
    /// Where it listens, written as [`crate::ListenAddress`] is.
    pub address: String,
    /// What its unit calls it: `FileDescriptorName=`, by default the unit's name.
    pub name: String,
}

impl ActivatedSocket {
    /// Takes over what `LISTEN_FDS` promises to this very process, in order; nothing when that is another (`LISTEN_PID`).
    ///
    /// May be called once: a second call would own descriptors twice, so it finds nothing.
    pub fn from_environment() -> Result<Vec<Self>, Error> {
        if claim_inheritance() { Self::from_variables(|name| env::var_os(name)) } else { Ok(Vec::new()) }
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<Self>, Error> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        if text("LISTEN_PID") != std::process::id().to_string() {
            return Ok(Vec::new());
        }
        let count: u16 = match text("LISTEN_FDS").as_str() {
            "" => 0,
            count => count
                .parse()
                .map_err(|_| refused(FIRST_DESCRIPTOR, format!("cannot be found: LISTEN_FDS is {count}")))?,
        };
        let names = text("LISTEN_FDNAMES");
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let descriptors = (0..count).map(|offset| FIRST_DESCRIPTOR + RawFd::from(offset));
        descriptors.map(|descriptor| Self::take(descriptor, names.next().unwrap_or("unknown"))).collect()
    }

    fn take(descriptor: RawFd, name: &str) -> Result<Self, Error> {
        let owned = sys::own_inherited(descriptor).map_err(|_| refused(descriptor, "is not open".to_owned()))?;
        let address = address_of(&owned).map_err(|reason| refused(descriptor, format!("({name}) {reason}")))?;
        Ok(Self { descriptor: owned, address, name: name.to_owned() })
    }
}

/// Where a socket listens, or why it cannot be served at.
fn address_of(socket: &OwnedFd) -> Result<String, &'static str> {
    let kind = getsockopt(socket, sockopt::SockType).map_err(|_| "is no socket")?;
    if kind != SockType::Stream {
        return Err("is no stream socket; its unit needs ListenStream=");
    }
    if !getsockopt(socket, sockopt::AcceptConn).unwrap_or(false) {
        return Err("does not listen; its unit needs Accept=no");
    }
    let address = getsockname::<SockaddrStorage>(socket.as_raw_fd()).map_err(|_| "has no address")?;
    if let Some(unix) = address.as_unix_addr() {
        let path = unix.path().map(|path| path.display().to_string());
        let name = || unix.as_abstract().map(|name| format!("@{}", String::from_utf8_lossy(name)));
        return path.or_else(name).map(|path| format!("unix:{path}")).ok_or("has no name");
    }
    let inet = address.as_sockaddr_in().map(ToString::to_string);
    inet.or_else(|| address.as_sockaddr_in6().map(ToString::to_string)).ok_or("is neither a TCP nor a unix socket")
}

fn refused(descriptor: RawFd, reason: String) -> Error {
    Error::Activation { descriptor, reason }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn owned(socket: impl Into<OwnedFd>) -> OwnedFd {
        socket.into()
    }

    #[test]
    fn sockets_are_shown_as_addresses_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = tcp.local_addr().unwrap().to_string();
        assert_eq!(address_of(&owned(tcp)), Ok(expected));
        if let Ok(tcp) = TcpListener::bind("[::1]:0") {
            let expected = tcp.local_addr().unwrap().to_string();
            assert_eq!(address_of(&owned(tcp)), Ok(expected));
        }
        let unix = UnixListener::bind(&path).unwrap();
        assert_eq!(address_of(&owned(unix)), Ok(format!("unix:{}", path.display())));
    }

    #[test]
    fn what_cannot_be_served_at_is_refused_with_what_its_unit_needs() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let cases = [
            (owned(std::fs::File::open("/dev/null").unwrap()), "is no socket"),
            (owned(UdpSocket::bind("127.0.0.1:0").unwrap()), "is no stream socket; its unit needs ListenStream="),
            (owned(connected), "does not listen; its unit needs Accept=no"),
            (owned(UnixStream::pair().unwrap().0), "does not listen; its unit needs Accept=no"),
        ];
        for (socket, reason) in cases {
            assert_eq!(address_of(&socket), Err(reason));
        }
    }

    fn from(variables: &[(&str, &str)]) -> Result<Vec<ActivatedSocket>, Error> {
        ActivatedSocket::from_variables(|name| {
            variables.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn sockets_meant_for_another_process_are_left_alone() {
        assert!(from(&[]).unwrap().is_empty());
        assert!(from(&[("LISTEN_PID", "1"), ("LISTEN_FDS", "2")]).unwrap().is_empty());
        let own_pid = std::process::id().to_string();
        assert!(from(&[("LISTEN_PID", &own_pid), ("LISTEN_FDS", "0")]).unwrap().is_empty());
    }

    #[test]
    fn what_is_promised_and_not_there_is_a_wrong_configuration() {
        let refused = ActivatedSocket::take(999_999, "http").unwrap_err();
        assert_eq!(refused.to_string(), "descriptor 999999, handed over by the service manager, is not open");
        assert_eq!(refused.exit_code(), 78);
        let own_pid = std::process::id().to_string();
        let refused = from(&[("LISTEN_PID", &own_pid), ("LISTEN_FDS", "two")]).unwrap_err();
        assert!(refused.to_string().contains("LISTEN_FDS is two"), "{refused}");
    }
}
