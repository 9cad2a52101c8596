//! What the cache counts. Handles are made once; counting is one atomic addition.

use telemetry::{Counter, Gauge, Histogram, Registry};

/// Seconds; a healthy invalidation takes the first three, one found by the watchdog the ones around a second.
const LAG_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Counters of one namespace.
#[derive(Debug)]
pub(crate) struct NamespaceMetrics {
    pub(crate) l1_hit: Counter,
    /// Answered with an old value, because a new one could not be had in time.
    pub(crate) l1_stale: Counter,
    pub(crate) l1_negative: Counter,
    pub(crate) l1_miss: Counter,
    pub(crate) l2_hit: Counter,
    /// An entry whose time is over; it stands in should nothing better be had.
    pub(crate) l2_stale: Counter,
    pub(crate) l2_negative: Counter,
    pub(crate) l2_miss: Counter,
    /// Entries of another format, codec or schema, or damaged.
    pub(crate) l2_mismatch: Counter,
    /// Redis could not be asked.
    pub(crate) l2_unavailable: Counter,
    pub(crate) loader_value: Counter,
    pub(crate) loader_absent: Counter,
    pub(crate) loader_error: Counter,
    /// Fills that Redis refused because the key was invalidated, or the lease lost, during the load.
    pub(crate) rejected_by_lease: Counter,
    /// Values kept out of L1 because the key was invalidated meanwhile.
    pub(crate) rejected_by_floor: Counter,
}

impl NamespaceMetrics {
    pub(crate) fn new(registry: &Registry, namespace: &str) -> Self {
        let requests = |tier, result| {
            let labels = [("namespace", namespace), ("tier", tier), ("result", result)];
            registry.counter(
                "bellwether_cache_requests_total",
                "Reads per level of the cache and how they ended",
                &labels,
            )
        };
        let rejected = |reason| {
            let labels = [("namespace", namespace), ("reason", reason)];
            let help = "Loaded values that were not stored because they might have been old";
            registry.counter("bellwether_cache_rejected_fills_total", help, &labels)
        };
        Self {
            l1_hit: requests("l1", "hit"),
            l1_stale: requests("l1", "stale"),
            l1_negative: requests("l1", "negative"),
            l1_miss: requests("l1", "miss"),
            l2_hit: requests("l2", "hit"),
            l2_stale: requests("l2", "stale"),
            l2_negative: requests("l2", "negative"),
            l2_miss: requests("l2", "miss"),
            l2_mismatch: requests("l2", "mismatch"),
            l2_unavailable: requests("l2", "unavailable"),
            loader_value: requests("loader", "value"),
            loader_absent: requests("loader", "absent"),
            loader_error: requests("loader", "error"),
            rejected_by_lease: rejected("lease"),
            rejected_by_floor: rejected("floor"),
        }
    }
}

/// Counters of the whole cache.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// From the script that invalidated to its effect here.
    pub(crate) lag_seconds: Histogram,
    pub(crate) gaps: Counter,
    pub(crate) catch_ups: Counter,
    pub(crate) dropped_by_epoch: Counter,
    pub(crate) dropped_by_sequence: Counter,
    pub(crate) dropped_by_log: Counter,
    pub(crate) unreadable_messages: Counter,
    pub(crate) subscription_rebuilds: Counter,
    pub(crate) leases_taken_over: Counter,
    pub(crate) overdue_changes: Counter,
    pub(crate) pending: Gauge,
    pub(crate) l1_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let dropped = |reason| {
            let help = "Lanes whose entries in memory were given up because invalidations may have been missed";
            registry.counter("bellwether_cache_lane_drops_total", help, &[("reason", reason)])
        };
        let counter = |name, help| registry.counter(name, help, &[]);
        Self {
            lag_seconds: registry.histogram(
                "bellwether_cache_invalidation_lag_seconds",
                "Time from an invalidation in Redis to its effect in this worker",
                &[],
                &LAG_BUCKETS,
            ),
            gaps: counter("bellwether_cache_gaps_total", "Messages that did not follow the one before"),
            catch_ups: counter("bellwether_cache_catch_ups_total", "Lanes brought up to date from their log"),
            dropped_by_epoch: dropped("epoch"),
            dropped_by_sequence: dropped("sequence"),
            dropped_by_log: dropped("log"),
            unreadable_messages: counter("bellwether_cache_unreadable_messages_total", "Messages of an unknown format"),
            subscription_rebuilds: counter(
                "bellwether_cache_subscription_rebuilds_total",
                "Subscriptions replaced because they said nothing of what the log shows",
            ),
            leases_taken_over: counter(
                "bellwether_cache_leases_taken_over_total",
                "Loads begun here because the worker that held their lease had died",
            ),
            overdue_changes: counter(
                "bellwether_cache_overdue_changes_total",
                "Invalidations made here because the worker that had announced them did not",
            ),
            pending: registry.gauge("bellwether_cache_pending_invalidations", "Invalidations that wait for Redis", &[]),
            l1_bytes: registry.gauge("bellwether_cache_l1_bytes", "Weight of the entries in memory", &[]),
        }
    }
}
