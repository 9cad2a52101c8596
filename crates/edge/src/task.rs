//! The life of one connection: the dispatcher, run until it ends or the sweep has had enough of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tracing::debug;

use crate::connection::{Connection, Order, Stage};
use crate::state::Registration;
use crate::statistics::Closed;

pin_project! {
    pub(crate) struct ConnectionTask<F> {
        // Dropped before the registration: an unfinished request says so in the connection's state.
        #[pin]
        dispatcher: F,
        registration: Registration,
    }
}

impl<F> ConnectionTask<F> {
    pub(crate) fn new(dispatcher: F, registration: Registration) -> Self {
        Self { dispatcher, registration }
    }
}

impl<F, E> Future for ConnectionTask<F>
where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let connection = &this.registration.0;
        connection.begin_poll(cx.waker());
        if connection.pending_order() == Some(Order::Abort) {
            count_abort(connection);
            return Poll::Ready(());
        }
        match this.dispatcher.poll(cx) {
            Poll::Ready(result) => {
                if let Err(error) = result {
                    debug!("a connection ended early: {error}");
                }
                Poll::Ready(())
            }
            Poll::Pending => {
                if connection.needs_another_poll() {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

fn count_abort(connection: &Connection) {
    if connection.stage.get() != Stage::Closing && connection.write_is_stalled() {
        connection.server.statistics.closed(Closed::WriteStalled);
    }
}
