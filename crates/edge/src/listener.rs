//! Listening sockets, and the loop that accepts from one until a drain begins.

mod adoption;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tracing::{debug, warn};

pub(crate) use adoption::Adopted;
pub use adoption::Adoption;

use crate::stream::Socket;

/// How long the kernel tries to deliver to a client that has vanished.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// At most one line in the log per this long, however often accepting fails.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A listening socket, opened by somebody else.
#[derive(Debug)]
pub enum Listener {
    /// TCP over IPv4 or IPv6.
    Tcp(std::net::TcpListener),
    /// A unix stream socket.
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Takes an inherited socket, whichever family it is of.
    ///
    /// # Errors
    /// If it is no TCP or unix socket.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let domain = SockRef::from(&descriptor).domain()?;
        match domain {
            socket2::Domain::IPV4 | socket2::Domain::IPV6 => Ok(Self::Tcp(descriptor.into())),
            socket2::Domain::UNIX => Ok(Self::Unix(descriptor.into())),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, format!("a listener of the family {domain:?}"))),
        }
    }

    /// Hands the socket to the runtime.
    pub(crate) fn start(self) -> io::Result<Accepting> {
        self.prepare()?;
        Ok(match self {
            Self::Tcp(listener) => Accepting::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Self::Unix(listener) => Accepting::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                // Accepted sockets inherit both, which saves two system calls for each.
                let socket = SockRef::from(listener);
                socket.set_nodelay(true)?;
                socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
            }
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// Accepts until the kernel says that the queue is empty, and closes the socket.
    pub(crate) fn empty_queue(self, take: impl Fn(Socket, Option<SocketAddr>)) -> io::Result<()> {
        self.prepare()?;
        match self {
            Self::Tcp(listener) => drain_queue(|| {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                take(Socket::Tcp(TcpStream::from_std(stream)?), Some(peer));
                Ok(())
            }),
            Self::Unix(listener) => drain_queue(|| {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                take(Socket::Unix(UnixStream::from_std(stream)?), None);
                Ok(())
            }),
        }
    }
}

/// A listening socket that the runtime watches.
pub(crate) enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Accepting {
    /// Gives every new connection to `take` until `drain` is ready, then those that are queued, and closes the socket.
    pub(crate) async fn run(
        self,
        drain: impl Future<Output = ()>,
        pause: Duration,
        take: impl Fn(Socket, Option<SocketAddr>),
    ) {
        let mut drain = std::pin::pin!(drain);
        let mut complaint = Complaint::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut drain => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => take(socket, peer),
                Err(error) if concerns_one_connection(&error) => debug!("a connection was gone when accepted: {error}"),
                Err(error) => {
                    complaint.make(&error);
                    tokio::select! {
                        () = &mut drain => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
        if let Err(error) = self.empty_queue(take) {
            warn!("what was queued at a listener could not be accepted: {error}");
        }
    }

    async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| (Socket::Tcp(stream), Some(peer))),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| (Socket::Unix(stream), None)),
        }
    }

    /// Asks the kernel itself. The runtime's word is not enough: it may not have heard yet of a connection that came in this moment.
    fn empty_queue(self, take: impl Fn(Socket, Option<SocketAddr>)) -> io::Result<()> {
        let listener = match self {
            Self::Tcp(listener) => Listener::Tcp(listener.into_std()?),
            Self::Unix(listener) => Listener::Unix(listener.into_std()?),
        };
        listener.empty_queue(take)
    }
}

fn drain_queue(mut accept: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match accept() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Anything else, most of all the lack of descriptors (`EMFILE`, `ENFILE`) or memory, also meets the next connection.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// The log's share of an error that may come back ten times a second.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    fn make(&mut self, error: &io::Error) {
        if self.last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            self.last = Some(Instant::now());
            warn!("connections cannot be accepted, trying on: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn accepted_sockets_inherit_the_options_of_their_listener() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = Listener::from_descriptor(listener.into()).unwrap().start().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (Socket::Tcp(accepted), Some(_)) = accepting.accept().await.unwrap() else { panic!("not TCP") };
        assert!(accepted.nodelay().unwrap());
        assert_eq!(SockRef::from(&accepted).tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
