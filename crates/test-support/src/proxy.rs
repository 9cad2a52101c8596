//! A TCP proxy that does to a connection what networks and dying servers do. It runs on a thread of its own, so that a test that blocks
//! does not stop it.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until};

use crate::endpoint::Endpoint;

/// What happens to the bytes of every connection, old and new, from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// Replies arrive this much later; requests pass at once, so a round trip grows by exactly this.
    Delay(Duration),
    /// Nothing is read or written until the mode changes; then everything flows on and nothing is lost.
    Stall,
    /// Requests reach the server, replies vanish. A connection that lost one stays without replies for good: no TCP stream has a hole.
    DropReplies,
    /// Both directions vanish while the connections stay open, those that are new included. One that lost bytes stays dead for good.
    BlackHole,
    /// Every connection is reset at once, the new ones as soon as they are accepted.
    Reset,
}

/// What went through a proxy so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Connections accepted.
    pub connections: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Bytes read from clients.
    pub request_bytes: u64,
    /// Bytes read from the server.
    pub reply_bytes: u64,
}

/// A proxy in front of one server.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    control: Arc<Control>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Control {
    mode: watch::Sender<Mode>,
    /// Grows by one with every [`FaultProxy::cut`].
    cuts: watch::Sender<u64>,
    /// Replies until the one that is swallowed: 0 = none is.
    replies_left: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
}

impl FaultProxy {
    /// Listens on a port of the loopback address and passes everything on to `upstream`, which need not listen yet.
    pub fn start(upstream: impl Into<Endpoint>) -> Self {
        let upstream = upstream.into();
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback address has a free port");
        listener.set_nonblocking(true).expect("a fresh socket takes O_NONBLOCK");
        let address = listener.local_addr().expect("a bound socket has an address");
        let control = Arc::new(Control {
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            replies_left: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            reply_bytes: AtomicU64::new(0),
        });
        let (stop, mut stopped) = watch::channel(false);
        let shared = Arc::clone(&control);
        let thread = std::thread::Builder::new().name("fault-proxy".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            LocalSet::new().block_on(&runtime, async move {
                tokio::select! {
                    () = accept(listener, upstream, shared) => {}
                    _ = stopped.changed() => {}
                }
            });
        });
        Self { address, control, stop, thread: Some(thread.expect("a thread starts")) }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens to every connection.
    pub fn set(&self, mode: Mode) {
        self.control.mode.send_replace(mode);
    }

    /// Swallows the `n`-th reply from now on (1 = the next), over all connections, and resets the connection it was for. A reply is what
    /// one read from the server returns: exact as long as clients wait for one answer before they ask again.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn drop_reply(&self, n: u64) {
        assert!(n > 0, "replies are counted from 1");
        self.control.replies_left.store(n, Ordering::SeqCst);
    }

    /// Resets the connections that are open now; new ones are served.
    pub fn cut(&self) {
        self.control.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            connections: self.control.connections.load(Ordering::SeqCst),
            open: self.control.open.load(Ordering::SeqCst),
            request_bytes: self.control.request_bytes.load(Ordering::SeqCst),
            reply_bytes: self.control.reply_bytes.load(Ordering::SeqCst),
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection in the count of open ones.
struct Open(Arc<Control>);

impl Open {
    fn count(control: &Arc<Control>) -> Self {
        control.connections.fetch_add(1, Ordering::SeqCst);
        control.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(control))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn accept(listener: std::net::TcpListener, upstream: Endpoint, control: Arc<Control>) {
    let listener = TcpListener::from_std(listener).expect("the listener does not block");
    let upstream = Rc::new(upstream);
    loop {
        // Out of descriptors: the test has bigger worries, and closing connections mends it.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let open = Open::count(&control);
        let upstream = Rc::clone(&upstream);
        // The runtime ends with the proxy, and every connection with it.
        drop(spawn_local(async move { relay(client, &upstream, open).await }));
    }
}

/// Serves one connection to its end.
async fn relay(mut client: TcpStream, upstream: &Endpoint, open: Open) {
    let control = &*open.0;
    let _ = client.set_nodelay(true);
    let mut cuts = control.cuts.subscribe();
    let clean = tokio::select! {
        biased;
        () = reset_ordered(control) => false,
        _ = cuts.changed() => false,
        ended = pass_both_ways(&mut client, upstream, control) => ended.is_ok(),
    };
    if !clean {
        // Closing with a linger of zero sends RST.
        let _ = client.set_zero_linger();
    }
}

async fn reset_ordered(control: &Control) {
    let mut mode = control.mode.subscribe();
    if mode.wait_for(|&mode| mode == Mode::Reset).await.is_err() {
        pending::<()>().await;
    }
}

async fn pass_both_ways(client: &mut TcpStream, upstream: &Endpoint, control: &Control) -> io::Result<()> {
    // A black hole swallows the connection to the server too.
    hold_while(control, |mode| mode == Mode::Stall).await;
    let server = loop {
        if *control.mode.borrow() != Mode::BlackHole {
            break upstream.connect().await?;
        }
        swallow_until_change(client, control).await?;
    };
    let (server_reader, server_writer) = split(server);
    let (client_reader, client_writer) = client.split();
    let requests = pass_requests(client_reader, server_writer, control);
    let replies = pass_replies(server_reader, client_writer, control);
    tokio::try_join!(requests, replies).map(|_| ())
}

/// Reads and forgets what a client sends into a black hole. What it sent is lost, so it never comes back from there.
async fn swallow_until_change(client: &mut TcpStream, control: &Control) -> io::Result<()> {
    let mut mode = control.mode.subscribe();
    let mut buffer = [0; 16 * 1024];
    let mut lost = 0;
    loop {
        tokio::select! {
            read = client.read(&mut buffer) => {
                let read = read?;
                control.request_bytes.fetch_add(read as u64, Ordering::SeqCst);
                lost += read;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            _ = mode.wait_for(|&mode| mode != Mode::BlackHole), if lost == 0 => return Ok(()),
        }
    }
}

async fn hold_while(control: &Control, held: impl Fn(Mode) -> bool) -> Mode {
    let mut mode = control.mode.subscribe();
    let result = mode.wait_for(|&mode| !held(mode)).await;
    *result.expect("the sender lives in `control`")
}

async fn pass_requests<R, W>(mut client: R, mut server: W, control: &Control) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        hold_while(control, |mode| mode == Mode::Stall).await;
        let read = client.read(&mut buffer).await?;
        control.request_bytes.fetch_add(read as u64, Ordering::SeqCst);
        // The mode may have changed while the read was waiting.
        let mode = hold_while(control, |mode| mode == Mode::Stall).await;
        lost |= mode == Mode::BlackHole;
        if read == 0 {
            return server.shutdown().await;
        }
        if !lost {
            server.write_all(&buffer[..read]).await?;
        }
    }
}

async fn pass_replies<R, W>(mut server: R, client: W, control: &Control) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sender, receiver) = mpsc::channel(1024);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        let mut lost = false;
        loop {
            hold_while(control, |mode| mode == Mode::Stall).await;
            let read = server.read(&mut buffer).await?;
            control.reply_bytes.fetch_add(read as u64, Ordering::SeqCst);
            let mode = hold_while(control, |mode| mode == Mode::Stall).await;
            lost |= matches!(mode, Mode::BlackHole | Mode::DropReplies);
            if read == 0 {
                // A server that goes away behind a black hole is not heard of either.
                return if lost { pending().await } else { Ok(()) };
            }
            if is_dropped_reply(control) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let delay = if let Mode::Delay(delay) = mode { delay } else { Duration::ZERO };
            if !lost && sender.send((Instant::now() + delay, buffer[..read].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::try_join!(reading, write_when_due(client, receiver)).map(|_| ())
}

/// Counts a reply; whether it is the one that [`FaultProxy::drop_reply`] asked for.
fn is_dropped_reply(control: &Control) -> bool {
    let count = |left: u64| left.checked_sub(1);
    control.replies_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1)
}

async fn write_when_due<W>(mut client: W, mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    while let Some((due, bytes)) = pieces.recv().await {
        sleep_until(due).await;
        client.write_all(&bytes).await?;
    }
    client.shutdown().await
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
