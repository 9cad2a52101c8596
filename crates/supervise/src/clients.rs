//! The supervisor's side of the control socket: never waits for a client, trusts only its own user and root.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use crate::control::{Reply, Request};
use crate::frame::{self, Decoder, FrameError};
use crate::{Error, StateLock, lock};

/// More connections than this are refused, so that clients cannot use up the descriptors workers need.
const MOST_CLIENTS: usize = 256;

/// A client that asks nothing for this long, and waits for nothing, is forgotten.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// A client that does not read this much is forgotten.
const UNREAD_BYTES: usize = 1 << 20;

/// After the descriptors have run out, accepting rests for this long instead of failing in a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The control socket with everybody connected to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Clients {
    #[serde(with = "crate::handover::descriptor")]
    listener: UnixListener,
    path: PathBuf,
    connections: Vec<Connection>,
    next_id: u64,
    #[serde(with = "crate::handover::moment::option")]
    accept_after: Option<Instant>,
    lock: StateLock,
}

/// Names one connection for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientId(pub(crate) u64);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) pid: i32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} (pid {})", self.uid, self.pid)
    }
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A request.
    Request(ClientId, Request),
    /// Something that is no request this release knows.
    Nonsense(ClientId),
    /// Somebody who may not ask was sent away.
    Refused(Peer),
}

#[derive(Debug, Serialize, Deserialize)]
struct Connection {
    id: ClientId,
    peer: Peer,
    #[serde(with = "crate::handover::descriptor")]
    stream: UnixStream,
    requests: Decoder<Request>,
    outgoing: Vec<u8>,
    #[serde(with = "crate::handover::moment")]
    last_heard: Instant,
    /// It has asked for something that takes its time.
    waits: bool,
    closed: bool,
}

impl Clients {
    /// Takes the lock beside `path`, so that a file found there is known to be stale, and listens.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        lock::create_directory_of(path)?;
        let lock = StateLock::try_acquire(&lock::beside(path))?;
        let cannot_create = |source| Error::CannotCreate { path: path.to_owned(), source };
        remove_stale(path).map_err(cannot_create)?;
        let listener = listen_at(path).map_err(cannot_create)?;
        Ok(Self { listener, path: path.to_owned(), connections: Vec::new(), next_id: 0, accept_after: None, lock })
    }

    /// What to wait for.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let listening = if self.accept_after.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
        let connections = self.connections.iter().map(|connection| {
            let writing = if connection.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            (connection.stream.as_fd(), PollFlags::POLLIN | writing)
        });
        std::iter::once((self.listener.as_fd(), listening)).chain(connections)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let idle = self.connections.iter().filter(|connection| !connection.waits);
        idle.map(|connection| connection.last_heard + IDLE_AFTER).chain(self.accept_after).min()
    }

    /// Accepts, reads and writes whatever is possible at once; returns what was asked.
    pub(crate) fn turn(&mut self, now: Instant) -> Vec<Asked> {
        let mut asked = Vec::new();
        if self.accept_after.is_none_or(|after| now >= after) {
            self.accept_after = None;
            self.accept(now, &mut asked);
        }
        for connection in &mut self.connections {
            connection.write();
            connection.read(now, &mut asked);
            connection.closed |= !connection.waits && now >= connection.last_heard + IDLE_AFTER;
        }
        self.connections.retain(|connection| !connection.closed);
        asked
    }

    /// Whether a client has left or does not read, so that answers are lost on it.
    pub(crate) fn is_gone(&self, id: ClientId) -> bool {
        self.connections.iter().all(|connection| connection.id != id || connection.closed)
    }

    /// Answers one client, if it is still there.
    pub(crate) fn reply(&mut self, id: ClientId, reply: &Reply) {
        if let Some(connection) = self.find(id) {
            connection.say(reply);
        }
    }

    /// A client's connection, so that another process can answer it; `None` while something is still on its way to it.
    pub(crate) fn connection(&self, id: ClientId) -> Option<BorrowedFd<'_>> {
        let connection = self.connections.iter().find(|connection| connection.id == id)?;
        connection.outgoing.is_empty().then(|| connection.stream.as_fd())
    }

    /// Leaves a client to whoever has its connection.
    pub(crate) fn forget(&mut self, id: ClientId) {
        self.connections.retain(|connection| connection.id != id);
    }

    /// Has a client hear of everything that happens until it gets its last word.
    pub(crate) fn keep(&mut self, id: ClientId) {
        if let Some(connection) = self.find(id) {
            connection.waits = true;
        }
    }

    /// Gives a client that was kept its last word.
    pub(crate) fn conclude(&mut self, id: ClientId, reply: &Reply) {
        if let Some(connection) = self.find(id) {
            connection.waits = false;
            connection.last_heard = Instant::now();
            connection.say(reply);
        }
    }

    /// Who a client is.
    pub(crate) fn peer(&self, id: ClientId) -> Option<Peer> {
        self.connections.iter().find(|connection| connection.id == id).map(|connection| connection.peer)
    }

    /// Tells those who wait.
    pub(crate) fn tell_waiting(&mut self, reply: &Reply) {
        for connection in self.connections.iter_mut().filter(|connection| connection.waits) {
            connection.say(reply);
        }
    }

    /// Gives the control socket up, but leaves the connections to the end of the process: only then may somebody who
    /// waited for this supervisor's end start the next one.
    pub(crate) fn leave(self) {
        let Self { listener, path, connections, lock, .. } = self;
        remove(&path);
        drop(listener);
        std::mem::forget(connections);
        std::mem::forget(lock);
    }

    /// Gives the control socket up before anybody could use it.
    pub(crate) fn abandon(self) {
        remove(&self.path);
    }

    fn find(&mut self, id: ClientId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    /// So many at most, lest somebody who only connects keep the loop to themselves.
    fn accept(&mut self, now: Instant, asked: &mut Vec<Asked>) {
        for _ in 0..MOST_CLIENTS {
            match self.listener.accept() {
                Ok((stream, _)) => asked.extend(self.admit(stream, now).map(Asked::Refused)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.accept_after = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Takes a connection in, or tells who was sent away because of who they are.
    fn admit(&mut self, stream: UnixStream, now: Instant) -> Option<Peer> {
        let credentials = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
        let peer = Peer { uid: credentials.uid(), pid: credentials.pid() };
        if peer.uid != 0 && peer.uid != Uid::effective().as_raw() {
            return Some(peer);
        }
        if self.connections.len() >= MOST_CLIENTS || stream.set_nonblocking(true).is_err() {
            return None;
        }
        self.next_id += 1;
        self.connections.push(Connection {
            id: ClientId(self.next_id),
            peer,
            stream,
            requests: Decoder::new(),
            outgoing: frame::greeting(),
            last_heard: now,
            waits: false,
            closed: false,
        });
        None
    }
}

/// The mode is set before the socket gets its name: afterwards would leave a moment in which others may connect.
fn listen_at(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::MAXALLOWABLE)?;
    Ok(socket.into())
}

/// Takes a socket away that the lock tells to be stale. Anything else that lies there is somebody's.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already and no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file left behind is harmless: the lock tells that it is stale.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

/// What a client gets in the place of what no reader accepts, such as the metrics of a worker that makes them up.
fn too_long() -> Reply {
    Reply::Failed { code: 1, message: "the answer is too long to be sent".to_owned() }
}

impl Connection {
    fn say(&mut self, reply: &Reply) {
        if self.closed {
            return;
        }
        self.outgoing.extend(frame::encode_json_if_it_fits(reply).unwrap_or_else(|| frame::encode_json(&too_long())));
        self.write();
        self.closed |= self.outgoing.len() > UNREAD_BYTES;
    }

    fn write(&mut self) {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.closed |= error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    /// Reads once, so that a client that never stops asking cannot keep the loop to itself.
    fn read(&mut self, now: Instant, asked: &mut Vec<Asked>) {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.closed = true,
            Ok(count) => {
                self.last_heard = now;
                self.requests.push(&bytes[..count]);
            }
            Err(error) => {
                let later = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
                self.closed |= !later;
            }
        }
        loop {
            match self.requests.next_json() {
                Ok(Some(request)) => asked.push(Asked::Request(self.id, request)),
                Ok(None) => return,
                Err(FrameError::Malformed) => asked.push(Asked::Nonsense(self.id)),
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn path(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("supervisor.sock")
    }

    /// A client that has connected and was noticed.
    fn connected(clients: &mut Clients) -> (UnixStream, ClientId) {
        let stream = UnixStream::connect(&clients.path).unwrap();
        clients.turn(Instant::now());
        (stream, clients.connections.last().unwrap().id)
    }

    #[test]
    fn an_answer_that_no_reader_accepts_is_told_to_be_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let mut clients = Clients::bind(&path(&directory)).unwrap();
        let (mut stream, id) = connected(&mut clients);
        clients.reply(id, &Reply::Progress("x".repeat(2 << 20)));
        let (mut replies, mut bytes) = (Decoder::<Reply>::new(), [0; 4096]);
        let count = stream.read(&mut bytes).unwrap();
        replies.push(&bytes[..count]);
        assert_eq!(replies.next_json(), Ok(Some(too_long())));
    }

    #[test]
    fn a_client_that_does_not_read_is_told_no_more_once_it_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut clients = Clients::bind(&path(&directory)).unwrap();
        let (_stream, id) = connected(&mut clients);
        clients.keep(id);
        for _ in 0..10_000 {
            clients.tell_waiting(&Reply::Progress("x".repeat(1_000)));
        }
        assert!(clients.is_gone(id));
        assert!(clients.connections[0].outgoing.len() < 2 * UNREAD_BYTES);
        clients.turn(Instant::now());
        assert!(clients.connections.is_empty());
    }

    #[test]
    fn nobody_else_may_connect() {
        let directory = tempfile::tempdir().unwrap();
        let _clients = Clients::bind(&path(&directory)).unwrap();
        assert_eq!(fs::metadata(path(&directory)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn only_a_socket_is_taken_for_one_that_was_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        fs::write(&path, "precious").unwrap();
        let refused = Clients::bind(&path).unwrap_err();
        assert_eq!(refused.exit_code(), 73);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        drop(Clients::bind(&path).unwrap());
        Clients::bind(&path).expect("a socket that nobody holds is no obstacle");
    }

    #[test]
    fn a_lock_that_leads_elsewhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, lock::beside(&path(&directory))).unwrap();
        assert_eq!(Clients::bind(&path(&directory)).unwrap_err().exit_code(), 73);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
