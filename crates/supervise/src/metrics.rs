//! The metrics of the whole: what every living worker has counted so far, and what those have that are gone.
//!
//! Pure: the loop tells who sent what and who ended. No counter and no histogram of [`Totals::text`] ever falls, so a scrape around a worker's
//! death sees no reset.

use serde::{Deserialize, Serialize};
use telemetry::{Snapshot, Value};

use crate::frame::{MAX_FRAME_BYTES, ToWorker};
use crate::status::Metric;

/// Values are kept in steps of 2⁻²⁰, about a microsecond. Sums of such values are exact up to 2³³, and those of whole numbers up to 2⁵³, so
/// that the order in which workers come and go cannot make a total fall by a rounding error: Prometheus would take that for a restart
/// and count everything twice.
const STEPS_PER_UNIT: f64 = (1 << 20) as f64;

/// What a frame needs besides the text in it.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// The last snapshot of every living worker, and the sums of those that ended. Serialises, so that a supervisor can hand it to its successor.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// With process ids, in the order in which they were first heard: where two releases mean different kinds of metric by one name, the
    /// one that was known before stays.
    living: Vec<(i32, Snapshot)>,
    /// Counters and histograms only.
    retired: Snapshot,
}

impl Totals {
    /// Replaces what is known of a living worker.
    pub(crate) fn update(&mut self, pid: i32, mut snapshot: Snapshot) {
        settle(&mut snapshot);
        match self.living.iter_mut().find(|(known, _)| *known == pid) {
            Some((_, last)) => *last = snapshot,
            None => self.living.push((pid, snapshot)),
        }
    }

    /// Keeps what a worker has counted and forgets its gauges. Whatever it has sent must have been read before.
    pub(crate) fn ended(&mut self, pid: i32) {
        let Some(index) = self.living.iter().position(|(known, _)| *known == pid) else { return };
        let (_, mut last) = self.living.remove(index);
        for family in &mut last.families {
            family.series.retain(|series| !matches!(series.value, Value::Gauge(_)));
        }
        last.families.retain(|family| !family.series.is_empty());
        self.retired.merge(&last);
    }

    /// Everything together in Prometheus's text format; `own` are the supervisor's own metrics.
    pub(crate) fn text(&self, own: &Snapshot) -> String {
        let mut all = self.retired.clone();
        for (_, snapshot) in &self.living {
            all.merge(snapshot);
        }
        all.merge(own);
        all.render()
    }

    /// The answer to a worker that wants to know, unless it is too long for a frame; a question without an answer ends as a 503.
    pub(crate) fn answer(&self, request: u64, own: &Snapshot) -> Option<ToWorker> {
        let text = self.text(own);
        (text.len() + FRAME_OVERHEAD_BYTES <= MAX_FRAME_BYTES).then_some(ToWorker::Metrics { request, text })
    }

    /// What one living worker sent last, value by value; nothing until it has sent something.
    pub(crate) fn of_worker(&self, pid: i32) -> Vec<Metric> {
        let snapshot = self.living.iter().find(|(known, _)| *known == pid).map(|(_, snapshot)| snapshot);
        let samples = snapshot.into_iter().flat_map(Snapshot::samples);
        samples.map(|(name, value)| Metric { name, value }).collect()
    }
}

/// Brings counts to steps that add up exactly, and leaves out gauges that are no number, which JSON cannot carry to the next supervisor.
fn settle(snapshot: &mut Snapshot) {
    for family in &mut snapshot.families {
        family.series.retain(|series| !matches!(series.value, Value::Gauge(value) if !value.is_finite()));
        for series in &mut family.series {
            match &mut series.value {
                Value::Counter(value) | Value::Histogram { sum: value, .. } => {
                    *value = (*value * STEPS_PER_UNIT).floor() / STEPS_PER_UNIT;
                }
                Value::Gauge(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
