//! Connections that wait at somebody else's listener: a server takes them over, and leaves the listener.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

use super::Listener;
use crate::stream::Socket;

/// A cheap clone that gives a server one more listener to empty.
#[derive(Debug, Clone)]
pub struct Adoption(UnboundedSender<Listener>);

/// The server's end of it.
pub(crate) struct Adopted(UnboundedReceiver<Listener>);

impl Adoption {
    pub(crate) fn new() -> (Self, Adopted) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), Adopted(receiver))
    }

    /// Has the server accept everything that is queued at `listener`, and close it. Other owners of the socket keep it open.
    ///
    /// It works while the server serves and while it drains. A server that has ended closes the listener unemptied.
    pub fn adopt(&self, listener: Listener) {
        // What cannot be sent any more is dropped, which closes it.
        let _ = self.0.send(listener);
    }
}

impl Adopted {
    /// Gives `take` what waits at every adopted listener.
    pub(crate) async fn run(mut self, take: impl Fn(Socket, Option<SocketAddr>)) -> Infallible {
        while let Some(listener) = self.0.recv().await {
            if let Err(error) = listener.empty_queue(&take) {
                warn!("what was queued at an adopted listener could not be accepted: {error}");
            }
        }
        // Nobody is left who could give one.
        pending().await
    }
}
