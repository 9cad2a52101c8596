//! The listening sockets: bound before the first fork, held until the end, never accepted from and never shut down.
//!
//! Each TCP address has one `SO_REUSEPORT` socket per slot, its shard. A socket's index in the kernel's group is its
//! slot's number for ever, because closing a member moves the last one into its place; so none is closed before the end.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, connect, listen, setsockopt, socket,
    sockopt,
};

use serde::{Deserialize, Serialize};

use crate::child::sys;
use crate::system::ActivatedSocket;
use crate::{Error, ListenAddress, Program, Spec, port_holder, steering};

/// The generation a fresh supervisor starts with.
pub(crate) const FIRST_GENERATION: u32 = 1;

/// All listening sockets of one supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sockets {
    listeners: Vec<(Place, Listener)>,
    /// What workers of a generation inherit, in the order of its `listen`.
    layouts: BTreeMap<u32, Vec<Place>>,
    /// Not sharded: one socket that every worker accepts from.
    admin: Option<Admin>,
    /// Every sharded address has so many shards.
    slots: u32,
    /// Our workers wait for all descriptors at once; a foreign program gets blocking sockets, as it would from systemd.
    nonblocking: bool,
    /// Dropping them gives them up. Not so those that were handed over: whoever reads them and then finds that it cannot go on must
    /// not take away files that are in use.
    #[serde(skip)]
    were_bound_here: bool,
}

/// What a listener was asked for as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// In the configuration; `nth` tells those apart that were asked for in the same words, as port 0 may be.
    Configured { address: ListenAddress, nth: usize },
    /// By the service manager, which has bound it.
    Activated { nth: usize },
}

#[derive(Debug, Serialize, Deserialize)]
enum Listener {
    Sharded(Sharded),
    Shared {
        address: String,
        /// Ours to remove.
        path: Option<PathBuf>,
        #[serde(with = "crate::handover::descriptor")]
        socket: OwnedFd,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Admin {
    address: SocketAddr,
    #[serde(with = "crate::handover::descriptor")]
    socket: OwnedFd,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sharded {
    address: SocketAddr,
    /// By slot.
    #[serde(with = "crate::handover::descriptor::list")]
    shards: Vec<OwnedFd>,
}

impl Sockets {
    /// Binds everything `spec` asks for, or nothing. What the service manager has bound takes the place of the addresses.
    pub(crate) fn bind(spec: &Spec, activated: Vec<ActivatedSocket>) -> Result<Self, Error> {
        let own = matches!(spec.program, Program::Own { .. });
        let mut sockets = Self {
            listeners: Vec::new(),
            layouts: BTreeMap::new(),
            admin: None,
            slots: spec.workers,
            nonblocking: own,
            were_bound_here: true,
        };
        sockets.take_activated(activated)?;
        sockets.prepare(FIRST_GENERATION, &spec.listen)?;
        if let Some(address) = spec.admin_listen.filter(|_| own && sockets.admin.is_none()) {
            let socket = bind_alone(address)?;
            listen(&socket, Backlog::MAXALLOWABLE).map_err(|errno| not_bound(address, errno))?;
            set_nonblocking(&socket)?;
            sockets.admin = Some(Admin { address: address_of(&socket, address)?, socket });
        }
        Ok(sockets)
    }

    /// Has workers of `generation` inherit what `addresses` say; binds those that are new, all of them or none.
    pub(crate) fn prepare(&mut self, generation: u32, addresses: &[ListenAddress]) -> Result<(), Error> {
        let layout = self.layout_of(addresses);
        let mut new = Vec::new();
        for place in layout.iter().filter(|place| self.listener(place).is_none()) {
            let Place::Configured { address, .. } = place else { continue };
            let listener = match address {
                ListenAddress::Tcp(address) => Listener::Sharded(Sharded::bind(*address, self.slots)?),
                ListenAddress::Unix(path) => Listener::Shared {
                    address: address.to_string(),
                    path: Some(path.clone()),
                    socket: bind_unix(path)?,
                },
            };
            if self.nonblocking {
                listener.sockets().iter().try_for_each(set_nonblocking)?;
            }
            new.push((place.clone(), listener));
        }
        self.listeners.extend(new);
        self.layouts.insert(generation, layout);
        Ok(())
    }

    /// From now on there are workers of `generation` only: gives up what none of them inherits.
    pub(crate) fn keep_only(&mut self, generation: u32) {
        self.layouts.retain(|kept, _| *kept == generation);
        let kept = self.layouts.get(&generation).cloned().unwrap_or_default();
        for (_, listener) in self.listeners.extract_if(.., |(place, _)| !kept.contains(place)) {
            listener.give_up();
        }
    }

    /// Makes room for `slots` slots at every address, or at none. A shard that was ever steered to is never given up, so that it keeps
    /// its index.
    pub(crate) fn grow(&mut self, slots: u32) -> Result<(), Error> {
        let (before, nonblocking) = (self.slots, self.nonblocking);
        let grown = self.sharded().try_for_each(|sharded| sharded.grow(slots, nonblocking));
        if grown.is_err() {
            // Descriptors that nobody uses would be missing where workers are started.
            self.sharded().for_each(|sharded| sharded.shrink(before));
            return grown;
        }
        self.slots = self.slots.max(slots);
        Ok(())
    }

    /// The addresses as they were bound for `generation`, without the admin listener's.
    pub(crate) fn addresses(&self, generation: u32) -> Vec<String> {
        self.layout(generation).map(Listener::address).collect()
    }

    /// The address of the admin listener as it was bound.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// What a worker of `generation` in `slot` inherits, with the names it goes by.
    pub(crate) fn of_slot(&self, slot: u32, generation: u32) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let listeners = self.layout(generation).map(|listener| match listener {
            Listener::Sharded(sharded) => ("http", sharded.shards[slot as usize].as_fd()),
            Listener::Shared { socket, .. } => ("http", socket.as_fd()),
        });
        listeners.chain(self.admin.iter().map(|admin| ("admin", admin.socket.as_fd()))).collect()
    }

    /// The shards of `slot` at which connections wait, with their number.
    pub(crate) fn waiting_at(&self, slot: u32) -> Vec<(BorrowedFd<'_>, u32)> {
        let shards = self.listeners.iter().filter_map(|(_, listener)| match listener {
            Listener::Sharded(sharded) => sharded.shards.get(slot as usize).map(AsFd::as_fd),
            Listener::Shared { .. } => None,
        });
        let with_length = shards.map(|shard| (shard, sys::accept_queue_length(shard).unwrap_or_default()));
        with_length.filter(|(_, length)| *length > 0).collect()
    }

    /// Has the kernel give new connections to `slots` only.
    pub(crate) fn steer(&self, slots: &[u32]) -> io::Result<()> {
        for (_, listener) in &self.listeners {
            if let Listener::Sharded(sharded) = listener {
                sharded.steer(slots)?;
            }
        }
        Ok(())
    }

    /// Gives everything up: whoever still queues is reset, whoever comes is refused.
    pub(crate) fn close(&mut self) {
        self.layouts.clear();
        self.listeners.drain(..).for_each(|(_, listener)| listener.give_up());
        self.admin = None;
    }

    /// Takes what the service manager has bound: one named `admin` for the admin listener, the rest for serving.
    fn take_activated(&mut self, activated: Vec<ActivatedSocket>) -> Result<(), Error> {
        for ActivatedSocket { descriptor, address, name } in activated {
            if self.nonblocking {
                set_nonblocking(&descriptor)?;
            }
            match address.parse() {
                Ok(address) if self.nonblocking && name == "admin" => {
                    self.admin = Some(Admin { address, socket: descriptor });
                }
                _ => {
                    let place = Place::Activated { nth: self.listeners.len() };
                    self.listeners.push((place, Listener::Shared { address, path: None, socket: descriptor }));
                }
            }
        }
        Ok(())
    }

    fn sharded(&mut self) -> impl Iterator<Item = &mut Sharded> {
        self.listeners.iter_mut().filter_map(|(_, listener)| match listener {
            Listener::Sharded(sharded) => Some(sharded),
            Listener::Shared { .. } => None,
        })
    }

    fn layout_of(&self, addresses: &[ListenAddress]) -> Vec<Place> {
        let places = self.listeners.iter().map(|(place, _)| place.clone());
        let activated: Vec<_> = places.filter(|place| matches!(place, Place::Activated { .. })).collect();
        if !activated.is_empty() {
            return activated;
        }
        let nth = |index: usize| addresses[..index].iter().filter(|before| **before == addresses[index]).count();
        let configured =
            |(index, address): (usize, &ListenAddress)| Place::Configured { address: address.clone(), nth: nth(index) };
        addresses.iter().enumerate().map(configured).collect()
    }

    fn listener(&self, place: &Place) -> Option<&Listener> {
        self.listeners.iter().find(|(known, _)| known == place).map(|(_, listener)| listener)
    }

    fn layout(&self, generation: u32) -> impl Iterator<Item = &Listener> {
        self.layouts.get(&generation).into_iter().flatten().filter_map(|place| self.listener(place))
    }
}

impl Listener {
    fn sockets(&self) -> &[OwnedFd] {
        match self {
            Self::Sharded(sharded) => &sharded.shards,
            Self::Shared { socket, .. } => std::slice::from_ref(socket),
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Sharded(sharded) => sharded.address.to_string(),
            Self::Shared { address, .. } => address.clone(),
        }
    }

    fn give_up(self) {
        if let Self::Shared { path: Some(path), .. } = self {
            // A file left behind is recognised as stale by the next one to bind it.
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if self.were_bound_here {
            self.close();
        }
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
        // The order of `listen` is the order in the kernel's group.
        listen(&first, Backlog::MAXALLOWABLE).map_err(failed)?;
        let mut sharded = Self { address: bound, shards: vec![first] };
        sharded.grow(count, false)?;
        let all: Vec<u32> = (0..count).collect();
        sharded.steer(&all).map_err(|source| Error::System { what: "steer connections to workers", source })?;
        Ok(sharded)
    }

    fn grow(&mut self, count: u32, nonblocking: bool) -> Result<(), Error> {
        let address = self.address;
        let failed = |errno| not_bound(address, errno);
        while self.shards.len() < count as usize {
            let shard = stream_socket(address).map_err(failed)?;
            setsockopt(&shard, sockopt::ReusePort, &true).map_err(failed)?;
            bind(shard.as_raw_fd(), &SockaddrStorage::from(address)).map_err(failed)?;
            if nonblocking {
                set_nonblocking(&shard)?;
            }
            listen(&shard, Backlog::MAXALLOWABLE).map_err(failed)?;
            self.shards.push(shard);
        }
        Ok(())
    }

    /// Gives up those beyond `count`, which were never steered to: the last one first, so that no other takes its place.
    fn shrink(&mut self, count: u32) {
        while self.shards.len() > count as usize {
            self.shards.pop();
        }
    }

    fn steer(&self, slots: &[u32]) -> io::Result<()> {
        sys::attach_reuseport_program(self.shards[0].as_fd(), &mut steering::program(slots))
    }
}

fn set_nonblocking(socket: &OwnedFd) -> Result<(), Error> {
    fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map_err(|errno| Error::System { what: "make a listener non-blocking", source: errno.into() })?;
    Ok(())
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
    if is_served(path) {
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

/// Whether somebody listens there. Without waiting for room in their queue, for which a blocking connection would.
fn is_served(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(socket) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { return false };
    let Ok(address) = UnixAddr::new(path) else { return false };
    matches!(connect(socket.as_raw_fd(), &address), Ok(()) | Err(Errno::EAGAIN))
}
