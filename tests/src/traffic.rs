//! Everything clients do at the same time: busy connections, a connection per request, people who think, uploads that take seconds, and a
//! load balancer that looks at `/readyz`.

use std::time::Duration;

use test_support::http::Request;
use test_support::{Connections, Histogram, Load, LoadReport, RunningLoad};

use crate::cluster::Cluster;

/// Cheap to answer, so that even a build without optimisation answers many.
const PATHS: [&str; 2] = ["/api/v1/categories", "/livez"];

/// How long a slow upload takes.
pub(crate) const SLOW: Duration = Duration::from_secs(5);

/// Longer than `http.keep_alive`, so that some connections are closed while their clients think.
const THINKING: Duration = Duration::from_secs(6);

/// Nothing but its end stops it.
const ENDLESS: Duration = Duration::from_secs(3_600);

/// Clients under way.
pub(crate) struct Traffic {
    running: Vec<(Kind, RunningLoad)>,
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One request after the other over a connection that is kept.
    Busy,
    /// Each over a connection of its own.
    PerRequest,
    /// Seconds pass between two requests over a connection that is kept.
    Thinking,
    /// A PATCH whose body ends seconds after it began.
    Slow,
    /// Looks at `/readyz` again and again.
    Balancer,
}

/// What came of all of them.
pub(crate) struct TrafficReport {
    reports: Vec<(Kind, LoadReport)>,
}

impl Traffic {
    /// Starts clients of every kind.
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let kinds = [Kind::Busy, Kind::PerRequest, Kind::Thinking, Kind::Slow, Kind::Balancer];
        Self::of(cluster, &kinds)
    }

    /// Starts clients of these kinds.
    pub(crate) fn of(cluster: &Cluster, kinds: &[Kind]) -> Self {
        let loads = kinds.iter().map(|kind| (*kind, kind.load(cluster).start()));
        Self { running: loads.collect() }
    }

    /// Requests that were answered so far.
    pub(crate) fn succeeded(&self) -> u64 {
        self.running.iter().map(|(_, load)| load.succeeded()).sum()
    }

    /// Latencies so far of the clients who wait for nothing but their answers, by second since the load began.
    pub(crate) fn latency_by_second(&self) -> Vec<Histogram> {
        let prompt = self.running.iter().filter(|(kind, _)| matches!(kind, Kind::Busy | Kind::PerRequest));
        let mut seconds: Vec<Histogram> = Vec::new();
        for known in prompt.map(|(_, load)| load.latency_by_second()) {
            seconds.resize_with(seconds.len().max(known.len()), Histogram::default);
            seconds.iter_mut().zip(&known).for_each(|(all, some)| all.merge(some));
        }
        seconds
    }

    /// Has all clients end after what they are at.
    pub(crate) fn end(self) -> TrafficReport {
        self.running.iter().for_each(|(_, load)| load.stop());
        TrafficReport { reports: self.running.into_iter().map(|(kind, load)| (kind, load.join())).collect() }
    }
}

impl Kind {
    fn load(self, cluster: &Cluster) -> Load {
        let ordinary = Load {
            mix: PATHS.map(Request::get).to_vec(),
            duration: ENDLESS,
            timeout: SLOW * 3,
            ..Load::new(cluster.address, "/")
        };
        match self {
            Self::Busy => Load { clients: 8, ..ordinary },
            Self::PerRequest => Load { clients: 3, connections: Connections::PerRequest, ..ordinary },
            Self::Thinking => Load { clients: 100, pause: THINKING, ..ordinary },
            Self::Slow => Load { clients: 4, mix: uploads(cluster), pause: Duration::from_millis(500), ..ordinary },
            Self::Balancer => {
                let mix = vec![Request::get("/readyz")];
                let pause = Duration::from_millis(40);
                Load { clients: 1, mix, connections: Connections::PerRequest, pause, ..ordinary }
            }
        }
    }
}

fn uploads(cluster: &Cluster) -> Vec<Request> {
    let bearer = format!("Bearer {}", cluster.token());
    let change = |product: serde_json::Value| {
        let path = format!("/api/v1/products/{}", product["id"].as_str().expect("an id is a string"));
        Request::new("PATCH", &path).header("authorization", &bearer).json("{\"stock\":5}").slowly(SLOW)
    };
    cluster.products(4).into_iter().map(change).collect()
}

impl TrafficReport {
    pub(crate) fn succeeded(&self) -> u64 {
        self.reports.iter().map(|(_, report)| report.succeeded).sum()
    }

    /// Requests of that kind that were answered.
    pub(crate) fn succeeded_of(&self, kind: Kind) -> u64 {
        self.reports.iter().filter(|(known, _)| *known == kind).map(|(_, report)| report.succeeded).sum()
    }

    /// # Panics
    /// When a request failed, or more than `retried` had to be sent again because a kept connection was closed under them.
    pub(crate) fn assert_clean(&self, retried: u64) {
        for (kind, report) in &self.reports {
            assert!(report.succeeded > 0 && report.failures.is_empty(), "{kind:?}: {report}");
            assert_eq!(report.reused_reset, 0, "{kind:?}: {report}");
        }
        let closed: u64 = self.reports.iter().map(|(_, report)| report.reused_closed).sum();
        assert!(closed <= retried, "{closed} requests met a connection that was just closed\n{self}");
    }
}

impl std::fmt::Display for TrafficReport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reports.iter().try_for_each(|(kind, report)| write!(formatter, "{kind:?}: {report}"))
    }
}
