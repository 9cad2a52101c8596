//! A load client: some closed-loop clients on a thread of their own that time every request and keep every failure with its reason.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::endpoint::Endpoint;
use crate::histogram::Histogram;
use crate::http::{Connection, ExchangeError, Request, Response};

/// Whether clients reuse connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// One connection per client until the server closes it.
    KeepAlive,
    /// One connection per request.
    PerRequest,
}

/// What to send, how and for how long. It stops by itself at `duration` or after `requests`, whichever comes first.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub endpoint: Endpoint,
    /// Sent in turn, every client starting at another one.
    pub mix: Vec<Request>,
    /// Clients, each with at most one request under way.
    pub clients: usize,
    /// Reuse of connections.
    pub connections: Connections,
    /// For how long.
    pub duration: Duration,
    /// Requests of all clients together.
    pub requests: u64,
    /// For connecting and for a whole answer.
    pub timeout: Duration,
    /// Statuses that are no failure.
    pub expected: Vec<u16>,
    /// A client pauses for a random part of this between two requests.
    pub pause: Duration,
}

impl Load {
    /// 8 keep-alive clients that GET `path` for 1 s and expect 200; change the fields for anything else.
    pub fn new(endpoint: impl Into<Endpoint>, path: &str) -> Self {
        Self {
            endpoint: endpoint.into(),
            mix: vec![Request::get(path)],
            clients: 8,
            connections: Connections::KeepAlive,
            duration: Duration::from_secs(1),
            requests: u64::MAX,
            timeout: Duration::from_secs(10),
            expected: vec![200],
            pause: Duration::ZERO,
        }
    }

    /// Starts the clients.
    ///
    /// # Panics
    /// When the mix is empty.
    pub fn start(self) -> RunningLoad {
        assert!(!self.mix.is_empty(), "a load needs at least one request to send");
        let (stop, stopped) = watch::channel(false);
        let (done, report) = oneshot::channel();
        let seconds = Seconds::default();
        let written = seconds.clone();
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            let report = LocalSet::new().block_on(&runtime, drive(self, stopped, written));
            // Nobody listens when the test gave up on the load.
            let _ = done.send(report);
        });
        RunningLoad { stop, report, seconds, thread: thread.expect("a thread starts") }
    }

    /// Runs it to its end, blocking the thread.
    pub fn run(self) -> LoadReport {
        self.start().join()
    }
}

/// A load under way. Dropping it stops the clients without waiting for them.
#[derive(Debug)]
pub struct RunningLoad {
    stop: watch::Sender<bool>,
    report: oneshot::Receiver<LoadReport>,
    seconds: Seconds,
    thread: JoinHandle<()>,
}

impl RunningLoad {
    /// Tells the clients to end after the request they are at.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Requests that got an expected status so far.
    pub fn succeeded(&self) -> u64 {
        self.seconds.with(|seconds| seconds.iter().map(Histogram::count).sum())
    }

    /// [`LoadReport::latency_by_second`] so far.
    pub fn latency_by_second(&self) -> Vec<Histogram> {
        self.seconds.with(|seconds| seconds.clone())
    }

    /// Waits for the end, blocking the thread.
    ///
    /// # Panics
    /// When the load panicked, or when called within a runtime.
    pub fn join(self) -> LoadReport {
        let report = self.report.blocking_recv().expect("the load ends with a report");
        self.thread.join().expect("the load has just ended");
        report
    }

    /// Waits for the end without blocking the thread.
    ///
    /// # Panics
    /// When the load panicked.
    pub async fn finish(self) -> LoadReport {
        self.report.await.expect("the load ends with a report")
    }
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The connection was refused.
    Refused,
    /// Connecting failed otherwise.
    Connect,
    /// The connection was reset before an answer.
    Reset,
    /// The connection was closed without a byte of an answer.
    Unanswered,
    /// No answer in time.
    Timeout,
    /// The answer ended in its middle.
    ShortBody,
    /// The answer is not HTTP.
    Malformed,
    /// The status was not expected.
    Status(u16),
}

/// One failure.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When the request began, since the start of the load.
    pub at: Duration,
    /// The reason.
    pub kind: FailureKind,
    /// What the operating system or the server said.
    pub detail: String,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Requests that got an expected status.
    pub succeeded: u64,
    /// Every other one.
    pub failures: Vec<Failure>,
    /// Answers by status, the unexpected ones included.
    pub statuses: BTreeMap<u16, u64>,
    /// Reused connections that were closed without a byte of an answer; their requests were sent once more, over a fresh connection.
    pub reused_closed: u64,
    /// Reused connections that were reset without a byte of an answer; likewise sent once more.
    pub reused_reset: u64,
    /// Connections that were found closed before they were used again. Nothing had been sent, so nothing was sent once more.
    pub closed_while_idle: u64,
    /// Connections opened.
    pub connections: u64,
    /// Time from sending to the end of the answer, successes only, retries included.
    pub latency: Histogram,
    /// The same by the second of the load in which a request began.
    pub latency_by_second: Vec<Histogram>,
    /// How long it took.
    pub elapsed: Duration,
}

impl LoadReport {
    /// Failures of that kind.
    pub fn failed(&self, kind: FailureKind) -> usize {
        self.failures.iter().filter(|failure| failure.kind == kind).count()
    }

    /// Answers with that status.
    pub fn status(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// # Panics
    /// When any request failed, or none was sent.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.succeeded > 0 && self.failures.is_empty(), "{self}");
    }
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, p99, max) = (self.latency.p50(), self.latency.p99(), self.latency.max());
        writeln!(
            formatter,
            "{} succeeded, {} failed in {:.1?} over {} connections; p50 {p50:?}, p99 {p99:?}, max {max:?}; statuses {:?}; \
             reused connections closed unanswered {}, reset unanswered {}, found closed {}",
            self.succeeded,
            self.failures.len(),
            self.elapsed,
            self.connections,
            self.statuses,
            self.reused_closed,
            self.reused_reset,
            self.closed_while_idle
        )?;
        let mut kinds: BTreeMap<FailureKind, Vec<&Failure>> = BTreeMap::new();
        for failure in &self.failures {
            kinds.entry(failure.kind).or_default().push(failure);
        }
        for (kind, failures) in kinds {
            let first = failures[0];
            writeln!(formatter, "  {} × {kind:?}, first at {:.3?}: {}", failures.len(), first.at, first.detail)?;
        }
        Ok(())
    }
}

/// What the clients of one load share.
struct Shared {
    load: Load,
    started: Instant,
    left: Cell<u64>,
    seconds: Seconds,
    report: RefCell<LoadReport>,
}

/// Latencies by second, written by the clients and read by the test.
#[derive(Debug, Clone, Default)]
struct Seconds(Arc<Mutex<Vec<Histogram>>>);

impl Seconds {
    fn record(&self, at: Duration, took: Duration) {
        let second = at.as_secs() as usize;
        self.with(|seconds| {
            if seconds.len() <= second {
                seconds.resize_with(second + 1, Histogram::default);
            }
            seconds[second].record(took);
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<Histogram>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn drive(load: Load, stopped: watch::Receiver<bool>, seconds: Seconds) -> LoadReport {
    let (clients, left) = (load.clients, Cell::new(load.requests));
    let shared = Rc::new(Shared { load, started: Instant::now(), left, seconds, report: RefCell::default() });
    let running: Vec<_> = (0..clients)
        .map(|number| spawn_local(Client { shared: Rc::clone(&shared), number, connection: None }.run(stopped.clone())))
        .collect();
    for client in running {
        client.await.expect("a client does not panic");
    }
    let mut report = shared.report.take();
    report.latency_by_second = shared.seconds.with(|seconds| seconds.clone());
    report.elapsed = shared.started.elapsed();
    report
}

struct Client {
    shared: Rc<Shared>,
    number: usize,
    connection: Option<Connection>,
}

impl Client {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let shared = Rc::clone(&self.shared);
        let end = shared.started + shared.load.duration;
        for turn in self.number.. {
            let left = shared.left.get();
            if *stopped.borrow() || stopped.has_changed().is_err() || left == 0 || Instant::now() >= end {
                return;
            }
            shared.left.set(left - 1);
            self.request(&shared.load.mix[turn % shared.load.mix.len()]).await;
            if !shared.load.pause.is_zero() {
                let pause = shared.load.pause.mul_f64(fastrand::f64());
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = stopped.changed() => return,
                }
            }
        }
    }

    /// Sends one request, once more if a reused connection turns out to be closed, and records how it went.
    async fn request(&mut self, request: &Request) {
        self.forget_what_is_closed();
        let begun = Instant::now();
        let reused = self.connection.is_some();
        let mut outcome = self.attempt(request).await;
        if let Err((kind @ (FailureKind::Unanswered | FailureKind::Reset), _)) = outcome
            && reused
        {
            self.count_broken_reuse(kind);
            outcome = self.attempt(request).await;
        }
        self.record(begun, outcome);
    }

    /// As a pool does, which watches the connections that nobody uses.
    fn forget_what_is_closed(&mut self) {
        if self.connection.as_mut().is_some_and(Connection::is_closed) {
            self.connection = None;
            self.shared.report.borrow_mut().closed_while_idle += 1;
        }
    }

    fn count_broken_reuse(&self, kind: FailureKind) {
        let mut report = self.shared.report.borrow_mut();
        match kind {
            FailureKind::Reset => report.reused_reset += 1,
            _ => report.reused_closed += 1,
        }
    }

    async fn attempt(&mut self, request: &Request) -> Result<Response, (FailureKind, String)> {
        let limit = self.shared.load.timeout;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.shared.report.borrow_mut().connections += 1;
                let opened = timeout(limit, Connection::open(&self.shared.load.endpoint)).await;
                opened.map_err(|_| late(limit))?.map_err(|error| (connect_failure(&error), error.to_string()))?
            }
        };
        let answered = timeout(limit, connection.exchange(request)).await;
        let response =
            answered.map_err(|_| late(limit))?.map_err(|error| (exchange_failure(&error), error.to_string()))?;
        if self.shared.load.connections == Connections::KeepAlive && !response.closes() {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    fn record(&self, begun: Instant, outcome: Result<Response, (FailureKind, String)>) {
        let mut report = self.shared.report.borrow_mut();
        let at = begun - self.shared.started;
        match outcome {
            Ok(response) => {
                *report.statuses.entry(response.status).or_default() += 1;
                if self.shared.load.expected.contains(&response.status) {
                    report.succeeded += 1;
                    report.latency.record(begun.elapsed());
                    self.shared.seconds.record(at, begun.elapsed());
                } else {
                    let detail = response.text().chars().take(300).collect();
                    report.failures.push(Failure { at, kind: FailureKind::Status(response.status), detail });
                }
            }
            Err((kind, detail)) => report.failures.push(Failure { at, kind, detail }),
        }
    }
}

fn late(limit: Duration) -> (FailureKind, String) {
    (FailureKind::Timeout, format!("nothing within {limit:?}"))
}

fn connect_failure(error: &io::Error) -> FailureKind {
    match error.kind() {
        // A unix socket without its file is refused as well.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => FailureKind::Refused,
        io::ErrorKind::ConnectionReset => FailureKind::Reset,
        _ => FailureKind::Connect,
    }
}

fn exchange_failure(error: &ExchangeError) -> FailureKind {
    let is_reset =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    match error {
        ExchangeError::Unanswered(error) if is_reset(error) => FailureKind::Reset,
        ExchangeError::Unanswered(_) => FailureKind::Unanswered,
        ExchangeError::Short(_) => FailureKind::ShortBody,
        ExchangeError::Malformed(_) => FailureKind::Malformed,
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
