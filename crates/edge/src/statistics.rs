//! What the worker reports about its requests, counted without locks or look-ups.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_http::{Method, StatusCode};
use telemetry::{Counter, Gauge, Histogram, LATENCY_BUCKETS, Registry};

use crate::latency::Latencies;

const METHODS: [&str; 8] = ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS", "_OTHER"];
const STATUSES: usize = 500;
/// How long the window of [`Snapshot::p99`] is.
const WINDOW: Duration = Duration::from_secs(1);

/// A cheap clone of the live figures of a server.
#[derive(Clone)]
pub struct Statistics(Rc<Inner>);

struct Inner {
    metrics: Registry,
    durations: RefCell<[Vec<Option<Histogram>>; METHODS.len()]>,
    connections_gauge: Gauge,
    active_gauge: Gauge,
    panics: Counter,
    closed: [Counter; Closed::NAMES.len()],
    connections: Cell<usize>,
    active: Cell<usize>,
    requests: Cell<u64>,
    current: RefCell<Latencies>,
    last: RefCell<Latencies>,
    window_began: Cell<Instant>,
}

/// The figures of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Open connections.
    pub connections: usize,
    /// Requests that have not been answered in full.
    pub active_requests: usize,
    /// Requests answered since the start.
    pub requests_total: u64,
    /// Of the answers of the last full second, the duration that 99 in 100 did not exceed; `None` without any. It is
    /// exact to 7 %.
    pub p99: Option<Duration>,
}

/// Why a connection was not taken, or was closed before its client wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    HeadLate,
    HeadTooLarge,
    BodyLate,
    WriteStalled,
    LongestIdle,
    ServerFull,
    AddressFull,
}

impl Closed {
    const NAMES: [&'static str; 7] = [
        "head_timeout",
        "head_too_large",
        "body_timeout",
        "write_stalled",
        "longest_idle",
        "connection_limit",
        "address_limit",
    ];
}

impl Statistics {
    pub(crate) fn new(metrics: &Registry) -> Self {
        let closed = Closed::NAMES.map(|reason| {
            let help = "Connections refused, or closed before their client wished.";
            metrics.counter("bellwether_http_closed_total", help, &[("reason", reason)])
        });
        Self(Rc::new(Inner {
            metrics: metrics.clone(),
            durations: RefCell::default(),
            connections_gauge: metrics.gauge("bellwether_http_connections", "Open connections.", &[]),
            active_gauge: metrics.gauge("http_server_active_requests", "Requests being answered.", &[]),
            panics: metrics.counter("bellwether_http_panics_total", "Panics in request handlers.", &[]),
            closed,
            connections: Cell::new(0),
            active: Cell::new(0),
            requests: Cell::new(0),
            current: RefCell::default(),
            last: RefCell::default(),
            window_began: Cell::new(Instant::now()),
        }))
    }

    /// The figures of this moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connections: self.0.connections.get(),
            active_requests: self.0.active.get(),
            requests_total: self.0.requests.get(),
            p99: self.0.last.borrow().quantile(0.99),
        }
    }

    pub(crate) fn requests_total(&self) -> u64 {
        self.0.requests.get()
    }

    pub(crate) fn set_connections(&self, count: usize) {
        self.0.connections.set(count);
    }

    pub(crate) fn request_began(&self) {
        self.0.active.set(self.0.active.get() + 1);
    }

    /// Counts a request that took `duration`; without a status the client went away first.
    pub(crate) fn request_ended(&self, method: MethodIndex, status: Option<StatusCode>, duration: Duration) {
        self.0.active.set(self.0.active.get() - 1);
        let Some(status) = status else { return };
        self.0.requests.set(self.0.requests.get() + 1);
        self.0.current.borrow_mut().record(duration);
        let mut durations = self.0.durations.borrow_mut();
        let of_method = &mut durations[method.0];
        let index = usize::from(status.as_u16()).saturating_sub(100).min(STATUSES - 1);
        if of_method.len() <= index {
            of_method.resize_with(STATUSES, || None);
        }
        of_method[index].get_or_insert_with(|| self.duration_histogram(method, status)).record(duration.as_secs_f64());
    }

    fn duration_histogram(&self, method: MethodIndex, status: StatusCode) -> Histogram {
        self.0.metrics.histogram(
            "http_server_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            &[("http_request_method", METHODS[method.0]), ("http_response_status_code", status.as_str())],
            &LATENCY_BUCKETS,
        )
    }

    pub(crate) fn panicked(&self) {
        self.0.panics.inc();
    }

    pub(crate) fn closed(&self, reason: Closed) {
        self.0.closed[reason as usize].inc();
    }

    /// Brings the gauges and the window up to date; called a few times a second.
    pub(crate) fn tick(&self) {
        self.0.connections_gauge.set(self.0.connections.get() as f64);
        self.0.active_gauge.set(self.0.active.get() as f64);
        if self.0.window_began.get().elapsed() >= WINDOW {
            self.0.window_began.set(Instant::now());
            self.0.current.swap(&self.0.last);
            self.0.current.borrow_mut().clear();
        }
    }
}

/// A method's place in the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MethodIndex(usize);

impl From<&Method> for MethodIndex {
    fn from(method: &Method) -> Self {
        Self(match *method {
            Method::GET => 0,
            Method::POST => 1,
            Method::PATCH => 2,
            Method::PUT => 3,
            Method::DELETE => 4,
            Method::HEAD => 5,
            Method::OPTIONS => 6,
            _ => METHODS.len() - 1,
        })
    }
}
