//! What is known of one connection, and the rules by which it is found late. No clock, no socket.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use actix_http::Payload;

use crate::DrainKind;
use crate::config::{Deadlines, ticks};
use crate::state::ServerState;

/// The largest head of a request, in bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// What the dispatcher gets to read at once. It decodes all requests in its buffer before it counts them, and each pins
/// about 5 KB, so this bounds what a pipelining client can pin.
const READ_BURST: usize = 8 * 1024;
/// What is read of a connection beyond the request being answered; enough to notice that the client has gone.
const LOOK_AHEAD: usize = 8 * 1024;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Accepted, nothing read yet.
    Fresh,
    /// Answered at least once, nothing read of the next request.
    Waiting,
    /// A part of a head has been read.
    Head,
    /// A handler is at work.
    Handling,
    /// The answer's body is being sent.
    Answering,
    /// The last answer has been given; what still comes in is thrown away.
    Closing,
}

/// The body of the request at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// None, or it has been read to its end.
    Complete,
    /// The handler is busy with what it has got.
    Held,
    /// The handler waits for the client to send more.
    Wanted,
}

/// What the sweep finds that a connection has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Close unless a request has just come in.
    CloseIdle,
    /// Answer 408 in place of the request that did not come, and close.
    HeadLate,
    /// Answer 408 in place of the handler, and close.
    BodyLate,
    /// Answer 504 in place of the handler.
    HandlerLate,
    /// Close at once.
    Abort,
}

/// A drain that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) kind: DrainKind,
    /// The tick at which it began.
    pub(crate) since: u32,
}

/// The state of one connection, shared by its socket, its requests and the sweep. Times are ticks.
pub(crate) struct Connection {
    pub(crate) server: Rc<ServerState>,
    /// `None` on a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether the peer's word is taken for the client's address.
    pub(crate) trusted: bool,
    /// What this connection counts against, unless it is exempt.
    pub(crate) counted: Option<IpAddr>,
    /// Its place among the open ones.
    pub(crate) index: Cell<usize>,
    pub(crate) stage: Cell<Stage>,
    since: Cell<u32>,
    /// How many requests have begun, which tells whose body a stream of one is.
    request: Cell<u32>,
    /// When the handler last got a piece of the body, or began.
    progress: Cell<u32>,
    pub(crate) body: Cell<Body>,
    body_allowed: Cell<u32>,
    /// The rest of a body that the handler left unread.
    pub(crate) unread: RefCell<Option<Payload>>,
    write_blocked: Cell<Option<u32>>,
    order: Cell<Option<Order>>,
    burst: Cell<usize>,
    ahead: Cell<usize>,
    head: Cell<usize>,
    throttled: Cell<bool>,
    too_large: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    pub(crate) fn new(
        server: Rc<ServerState>,
        peer: Option<SocketAddr>,
        trusted: bool,
        counted: Option<IpAddr>,
    ) -> Self {
        let now = server.now();
        let body_allowed = server.deadlines.body;
        Self {
            server,
            peer,
            trusted,
            counted,
            index: Cell::new(0),
            stage: Cell::new(Stage::Fresh),
            since: Cell::new(now),
            request: Cell::new(0),
            progress: Cell::new(now),
            body: Cell::new(Body::Complete),
            body_allowed: Cell::new(body_allowed),
            unread: RefCell::new(None),
            write_blocked: Cell::new(None),
            order: Cell::new(None),
            burst: Cell::new(READ_BURST),
            ahead: Cell::new(LOOK_AHEAD),
            head: Cell::new(0),
            throttled: Cell::new(false),
            too_large: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// Notes that the connection's task is about to run.
    pub(crate) fn begin_poll(&self, waker: &Waker) {
        self.burst.set(READ_BURST);
        self.throttled.set(false);
        self.too_large.set(self.head_is_full());
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Whether the task has to run again although nobody is going to wake it: the socket was not asked for more, or the
    /// dispatcher holds requests that it did not decode because sixteen others were waiting.
    pub(crate) fn needs_another_poll(&self) -> bool {
        if matches!(self.stage.get(), Stage::Waiting) && self.ahead.replace(LOOK_AHEAD) < LOOK_AHEAD {
            return true;
        }
        self.throttled.get() && (self.burst.get() == 0 || self.allowance() > 0 || self.head_is_full())
    }

    /// How many bytes may be read now.
    pub(crate) fn allowance(&self) -> usize {
        let burst = self.burst.get();
        match self.stage.get() {
            Stage::Fresh | Stage::Waiting | Stage::Head => burst.min(MAX_HEAD_BYTES.saturating_sub(self.head.get())),
            Stage::Handling | Stage::Answering if self.body.get() != Body::Wanted => burst.min(self.ahead.get()),
            Stage::Handling | Stage::Answering | Stage::Closing => burst,
        }
    }

    /// Whether the dispatcher has seen all bytes that a head may have and found no request in them.
    pub(crate) fn head_is_too_large(&self) -> bool {
        self.too_large.get()
    }

    fn head_is_full(&self) -> bool {
        self.stage.get() == Stage::Head && self.head.get() >= MAX_HEAD_BYTES
    }

    /// Notes that nothing was read because nothing may be.
    pub(crate) fn throttle(&self) {
        self.throttled.set(true);
    }

    /// Notes that `count` bytes were read.
    pub(crate) fn bytes_read(&self, count: usize) {
        self.burst.set(self.burst.get().saturating_sub(count));
        match self.stage.get() {
            Stage::Fresh | Stage::Waiting => {
                self.enter(Stage::Head);
                self.head.set(count);
            }
            Stage::Head => self.head.set(self.head.get() + count),
            Stage::Handling | Stage::Answering if self.body.get() != Body::Wanted => {
                self.ahead.set(self.ahead.get().saturating_sub(count));
            }
            Stage::Handling | Stage::Answering | Stage::Closing => {}
        }
    }

    /// Notes that the client does not take what is written.
    pub(crate) fn write_is_blocked(&self) {
        if self.write_blocked.get().is_none() {
            self.write_blocked.set(Some(self.server.now()));
        }
    }

    /// Whether the client has not taken all that was written.
    pub(crate) fn write_is_stalled(&self) -> bool {
        self.write_blocked.get().is_some()
    }

    /// Notes that the client has taken something.
    pub(crate) fn write_went_on(&self) {
        if self.write_blocked.take().is_some() && self.stage.get() == Stage::Waiting {
            self.since.set(self.server.now());
        }
    }

    /// A request has been read up to the end of its head.
    pub(crate) fn begin_request(&self, has_body: bool) {
        self.enter(Stage::Handling);
        self.request.set(self.request.get().wrapping_add(1));
        self.progress.set(self.since.get());
        self.body.set(if has_body { Body::Held } else { Body::Complete });
        self.body_allowed.set(self.server.deadlines.body);
        self.head.set(0);
        self.order.set(None);
    }

    /// The number of the request at hand.
    pub(crate) fn request(&self) -> u32 {
        self.request.get()
    }

    /// Gives the body of the request at hand more time, or less.
    pub(crate) fn allow_body(&self, duration: Duration) {
        self.body_allowed.set(ticks(duration, self.server.deadlines.tick));
    }

    /// Gives the rest of a body that nobody needs a moment from now.
    pub(crate) fn allow_rest(&self) {
        self.body_allowed.set(self.server.now().wrapping_sub(self.since.get()).saturating_add(1));
    }

    /// The handler has got a piece of the body, or its end.
    pub(crate) fn body_progress(&self, body: Body) {
        self.body.set(body);
        self.progress.set(self.server.now());
    }

    /// The handler waits for the client. Its task may not be the connection's, which has to read again.
    pub(crate) fn body_is_wanted(&self) {
        self.body.set(Body::Wanted);
        if self.throttled.get() {
            self.wake();
        }
    }

    /// The answer has been handed over up to its body.
    pub(crate) fn begin_answer(&self) {
        self.stage.set(Stage::Answering);
        self.order.set(None);
    }

    /// The answer has been handed over, or nobody is there to take it.
    pub(crate) fn end_request(&self, closing: bool) {
        self.unread.take();
        self.body.set(Body::Complete);
        self.enter(if closing { Stage::Closing } else { Stage::Waiting });
    }

    /// No request will be taken any more.
    pub(crate) fn begin_closing(&self) {
        self.enter(Stage::Closing);
    }

    fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.since.set(self.server.now());
    }

    /// Since when the connection has been waiting for a request, if it has.
    pub(crate) fn idle_since(&self) -> Option<u32> {
        let idle = matches!(self.stage.get(), Stage::Fresh | Stage::Waiting)
            && self.write_blocked.get().is_none()
            && self.order.get().is_none();
        idle.then(|| self.since.get())
    }

    /// Whether a request of this connection has not been answered in full.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.stage.get(), Stage::Handling | Stage::Answering)
    }

    /// Gives the connection's task something to do.
    pub(crate) fn order(&self, order: Order) {
        self.order.set(Some(order));
        self.wake();
    }

    /// The order that is still to be followed.
    pub(crate) fn pending_order(&self) -> Option<Order> {
        self.order.get()
    }

    /// Notes that the order has been followed, or has become pointless.
    pub(crate) fn forget_order(&self) {
        self.order.set(None);
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Finds out whether the connection is late.
    pub(crate) fn judge(&self, now: u32, deadlines: &Deadlines, drain: Option<Drain>) -> Option<Order> {
        let since = self.since.get();
        if let Some(blocked) = self.write_blocked.get() {
            return late(blocked, now, deadlines.write_stall).then_some(Order::Abort);
        }
        let (start, allowed, order) = match self.stage.get() {
            Stage::Closing => (since, deadlines.linger, Order::Abort),
            Stage::Head => (since, deadlines.head, Order::HeadLate),
            stage @ (Stage::Fresh | Stage::Waiting) => match drain {
                Some(Drain { kind: DrainKind::Stop, since: begun }) => {
                    (since.max(begun), deadlines.stop_silence, Order::CloseIdle)
                }
                None if stage == Stage::Fresh => (since, deadlines.head, Order::CloseIdle),
                _ => (since, deadlines.keep_alive, Order::CloseIdle),
            },
            stage @ (Stage::Handling | Stage::Answering) => match self.body.get() {
                Body::Wanted if stage == Stage::Handling => (since, self.body_allowed.get(), Order::BodyLate),
                Body::Wanted => (since, self.body_allowed.get(), Order::Abort),
                _ if stage == Stage::Handling => (self.progress.get(), deadlines.handler, Order::HandlerLate),
                _ => return None,
            },
        };
        if !late(start, now, allowed) {
            return None;
        }
        // A dispatcher that is closing on its own accord may not ask for its orders any more.
        let ignored = late(start, now, allowed.saturating_add(deadlines.linger));
        Some(if ignored { Order::Abort } else { order })
    }
}

fn late(since: u32, now: u32, allowed: u32) -> bool {
    now.wrapping_sub(since) > allowed
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
