//! The listening sockets: bound before the first fork, held until the end, never accepted from and never shut down.
//!
//! Each TCP address has one `SO_REUSEPORT` socket per slot, its shard. A socket's index in the kernel's group is its
//! slot's number for ever, because closing a member moves the last one into its place; so none is closed before the end.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen, setsockopt, socket, sockopt,
};

use crate::child::sys;
use crate::{Error, ListenAddress, Program, Spec, port_holder, steering};

/// All listening sockets of one supervisor.
#[derive(Debug)]
pub(crate) struct Sockets {
    listeners: Vec<Listener>,
    /// Not sharded: one socket that every worker accepts from.
    admin: Option<(SocketAddr, OwnedFd)>,
}

#[derive(Debug)]
enum Listener {
    Sharded(Sharded),
    Shared { path: PathBuf, socket: OwnedFd },
}

#[derive(Debug)]
struct Sharded {
    address: SocketAddr,
    /// By slot.
    shards: Vec<OwnedFd>,
}

impl Sockets {
    /// Binds everything `spec` asks for, or nothing.
    pub(crate) fn bind(spec: &Spec) -> Result<Self, Error> {
        let own = matches!(spec.program, Program::Own { .. });
        let mut sockets = Self { listeners: Vec::new(), admin: None };
        for address in &spec.listen {
            let listener = match address {
                ListenAddress::Tcp(address) => Listener::Sharded(Sharded::bind(*address, spec.workers)?),
                ListenAddress::Unix(path) => Listener::Shared { path: path.clone(), socket: bind_unix(path)? },
            };
            sockets.listeners.push(listener);
        }
        if let Some(address) = spec.admin_listen.filter(|_| own) {
            let socket = bind_alone(address)?;
            listen(&socket, Backlog::MAXALLOWABLE).map_err(|errno| not_bound(address, errno))?;
            sockets.admin = Some((address_of(&socket, address)?, socket));
        }
        if own {
            sockets.set_nonblocking()?;
        }
        Ok(sockets)
    }

    /// The addresses as they were bound, without the admin listener's.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.listeners
            .iter()
            .map(|listener| match listener {
                Listener::Sharded(sharded) => sharded.address.to_string(),
                Listener::Shared { path, .. } => format!("unix:{}", path.display()),
            })
            .collect()
    }

    /// The address of the admin listener as it was bound.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(address, _)| *address)
    }

    /// What the worker in `slot` inherits, with the names it goes by.
    pub(crate) fn of_slot(&self, slot: u32) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let listeners = self.listeners.iter().map(|listener| match listener {
            Listener::Sharded(sharded) => ("http", sharded.shards[slot as usize].as_fd()),
            Listener::Shared { socket, .. } => ("http", socket.as_fd()),
        });
        listeners.chain(self.admin.iter().map(|(_, socket)| ("admin", socket.as_fd()))).collect()
    }

    /// Has the kernel give new connections to `slots` only.
    pub(crate) fn steer(&self, slots: &[u32]) -> io::Result<()> {
        for listener in &self.listeners {
            if let Listener::Sharded(sharded) = listener {
                sharded.steer(slots)?;
            }
        }
        Ok(())
    }

    /// Gives everything up: whoever still queues is reset, whoever comes is refused.
    pub(crate) fn close(&mut self) {
        for listener in self.listeners.drain(..) {
            if let Listener::Shared { path, .. } = listener {
                // A file left behind is recognised as stale by the next one to bind it.
                let _ = fs::remove_file(path);
            }
        }
        self.admin = None;
    }

    /// Our workers wait for all descriptors at once. A foreign program gets blocking sockets, as it would from systemd.
    fn set_nonblocking(&self) -> Result<(), Error> {
        let shards = self.listeners.iter().flat_map(|listener| match listener {
            Listener::Sharded(sharded) => sharded.shards.as_slice(),
            Listener::Shared { socket, .. } => std::slice::from_ref(socket),
        });
        for socket in shards.chain(self.admin.iter().map(|(_, socket)| socket)) {
            fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .map_err(|errno| Error::System { what: "make a listener non-blocking", source: errno.into() })?;
        }
        Ok(())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.close();
    }
}

impl Sharded {
    /// The first socket joins the group only after it was bound without: a member of another process's group would
    /// otherwise be admitted silently, and each would get a share of the connections.
    fn bind(address: SocketAddr, count: u32) -> Result<Self, Error> {
        let failed = |errno| not_bound(address, errno);
        let first = bind_alone(address)?;
        setsockopt(&first, sockopt::ReusePort, &true).map_err(failed)?;
        let bound = address_of(&first, address)?;
        let mut shards = vec![first];
        for _ in 1..count {
            let shard = stream_socket(bound).map_err(failed)?;
            setsockopt(&shard, sockopt::ReusePort, &true).map_err(failed)?;
            bind(shard.as_raw_fd(), &SockaddrStorage::from(bound)).map_err(failed)?;
            shards.push(shard);
        }
        // The order of `listen` is the order in the kernel's group.
        for shard in &shards {
            listen(shard, Backlog::MAXALLOWABLE).map_err(failed)?;
        }
        let sharded = Self { address: bound, shards };
        let all: Vec<u32> = (0..count).collect();
        sharded.steer(&all).map_err(|source| Error::System { what: "steer connections to workers", source })?;
        Ok(sharded)
    }

    fn steer(&self, slots: &[u32]) -> io::Result<()> {
        sys::attach_reuseport_program(self.shards[0].as_fd(), &mut steering::program(slots))
    }
}

fn stream_socket(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Connections of an earlier process that linger in TIME_WAIT must not keep the next one out.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    Ok(socket)
}

fn bind_alone(address: SocketAddr) -> Result<OwnedFd, Error> {
    let socket = stream_socket(address).map_err(|errno| not_bound(address, errno))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).map_err(|errno| not_bound(address, errno))?;
    Ok(socket)
}

fn not_bound(address: SocketAddr, errno: Errno) -> Error {
    let text = address.to_string();
    match errno {
        Errno::EADDRINUSE => Error::AddressTaken { address: text, holder: port_holder::of_tcp(address) },
        errno => Error::Bind { address: text, source: errno.into() },
    }
}

/// Where `socket` is bound, with the port the system chose if `wanted` left it open.
fn address_of(socket: &OwnedFd, wanted: SocketAddr) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Bind { address: wanted.to_string(), source };
    let copy = socket.try_clone().map_err(failed)?;
    TcpListener::from(copy).local_addr().map_err(failed)
}

fn bind_unix(path: &Path) -> Result<OwnedFd, Error> {
    let name = || format!("unix:{}", path.display());
    let failed = |errno: Errno| Error::Bind { address: name(), source: errno.into() };
    if UnixStream::connect(path).is_ok() {
        return Err(Error::AddressTaken { address: name(), holder: port_holder::of_unix(path) });
    }
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        // Nobody accepted on it, so it was left behind.
        fs::remove_file(path).map_err(|source| Error::Bind { address: name(), source })?;
    }
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let address = UnixAddr::new(path).map_err(failed)?;
    bind(socket.as_raw_fd(), &address).map_err(failed)?;
    listen(&socket, Backlog::MAXALLOWABLE).map_err(failed)?;
    Ok(socket)
}
