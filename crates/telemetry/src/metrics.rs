//! Counters, gauges and histograms of this process. Handles are cheap to clone and cost an atomic operation to use; the registry is asked
//! only when a handle is made and when a snapshot is taken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::snapshot::{Combine, Family, Series, Snapshot, Value};

/// Upper bounds in seconds for the duration of requests and calls: OpenTelemetry's for HTTP, and finer ones below 5 ms.
pub const LATENCY_BUCKETS: [f64; 17] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// A value that only grows. Its name ends in `_total`.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: f64) {
        add_to(&self.0, amount);
    }

    /// The value now.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// How often values were seen, by size.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: Box<[f64]>,
    /// One more than bounds: the last one counts what is above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds: bounds.into(), counts, sum: AtomicU64::new(0) }))
    }

    /// Adds one value, in the base unit: seconds, bytes. What is not finite is not a value.
    pub fn record(&self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let buckets = &*self.0;
        let index = buckets.bounds.partition_point(|&bound| bound < value);
        buckets.counts[index].fetch_add(1, Ordering::Relaxed);
        add_to(&buckets.sum, value);
    }

    fn read(&self) -> Value {
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = f64::from_bits(self.0.sum.load(Ordering::Relaxed));
        Value::Histogram { bounds: self.0.bounds.to_vec(), counts, sum }
    }
}

fn add_to(bits: &AtomicU64, amount: f64) {
    let add = |bits| Some((f64::from_bits(bits) + amount).to_bits());
    // `add` always returns something, so the update cannot fail.
    let _ = bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
}

type Labels = Vec<(String, String)>;

#[derive(Debug, Clone)]
enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

#[derive(Debug)]
struct Registered {
    help: String,
    combine: Combine,
    series: BTreeMap<Labels, Handle>,
}

/// All metrics of a process, or of a test. Clones share them.
///
/// The same name and labels give the same handle. A name belongs to one kind of metric for ever, and its help and buckets are those that it
/// was first registered with.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<String, Registered>>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter, made at the first call.
    ///
    /// # Panics
    /// When the name or a label is not one for Prometheus, or the name belongs to another kind of metric: both are mistakes in the code.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        match self.register(name, help, Combine::Sum, labels, || Handle::Counter(Counter::default())) {
            Handle::Counter(counter) => counter,
            other => panic!("{name} is no counter: {other:?}"),
        }
    }

    /// A gauge whose values add up over workers, made at the first call.
    ///
    /// # Panics
    /// As [`Registry::counter`].
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        self.gauge_combined(name, help, labels, Combine::Sum)
    }

    /// A gauge whose values over workers give their sum, maximum or minimum, made at the first call.
    ///
    /// # Panics
    /// As [`Registry::counter`].
    pub fn gauge_combined(&self, name: &str, help: &str, labels: &[(&str, &str)], combine: Combine) -> Gauge {
        match self.register(name, help, combine, labels, || Handle::Gauge(Gauge::default())) {
            Handle::Gauge(gauge) => gauge,
            other => panic!("{name} is no gauge: {other:?}"),
        }
    }

    /// A histogram, made at the first call. `buckets` are upper bounds in ascending order, without infinity.
    ///
    /// # Panics
    /// As [`Registry::counter`], and when the buckets are not in order.
    pub fn histogram(&self, name: &str, help: &str, labels: &[(&str, &str)], buckets: &[f64]) -> Histogram {
        let ordered = buckets.is_sorted_by(|a, b| a < b) && buckets.iter().all(|bound| bound.is_finite());
        assert!(ordered, "the buckets of {name} are not in ascending order: {buckets:?}");
        match self.register(name, help, Combine::Sum, labels, || Handle::Histogram(Histogram::new(buckets))) {
            Handle::Histogram(histogram) => histogram,
            other => panic!("{name} is no histogram: {other:?}"),
        }
    }

    /// All values now, in order of their names and labels.
    pub fn snapshot(&self) -> Snapshot {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(labels, handle): (&Labels, &Handle)| Series {
            labels: labels.clone(),
            value: match handle {
                Handle::Counter(counter) => Value::Counter(counter.get() as f64),
                Handle::Gauge(gauge) => Value::Gauge(gauge.get()),
                Handle::Histogram(histogram) => histogram.read(),
            },
        };
        let families = families.iter().map(|(name, registered)| Family {
            name: name.clone(),
            help: registered.help.clone(),
            combine: registered.combine,
            series: registered.series.iter().map(read).collect(),
        });
        Snapshot { families: families.collect() }
    }

    fn register(
        &self,
        name: &str,
        help: &str,
        combine: Combine,
        labels: &[(&str, &str)],
        make: impl FnOnce() -> Handle,
    ) -> Handle {
        assert!(is_name(name), "{name:?} is no name for a metric");
        let mut labels: Labels = labels.iter().map(|&(label, value)| (label.to_owned(), value.to_owned())).collect();
        labels.sort();
        assert!(labels.iter().all(|(label, _)| is_label(label)), "{name} has a label that is none: {labels:?}");
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name.to_owned()).or_insert_with(|| Registered {
            help: help.to_owned(),
            combine,
            series: BTreeMap::new(),
        });
        let handle = make();
        let kind = family.series.values().next().map(std::mem::discriminant);
        if kind.is_some_and(|kind| kind != std::mem::discriminant(&handle)) {
            // The caller tells the two kinds apart and panics without the lock.
            return family.series.values().next().cloned().unwrap_or(handle);
        }
        family.series.entry(labels).or_insert(handle).clone()
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
fn is_name(text: &str) -> bool {
    text.split(':').all(|part| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, and `le` belongs to histograms.
fn is_label(text: &str) -> bool {
    is_name(text) && !text.contains(':') && text != "le"
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
