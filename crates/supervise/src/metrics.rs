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

/// The longest text of what the dead have counted. A worker that makes up names without end, life after life, must neither fill
/// memory nor keep the answer from fitting into a frame.
const RETIRED_BYTES: usize = MAX_FRAME_BYTES / 2;

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
        let mut all = self.retired.clone();
        all.merge(&last);
        if all.render().len() > RETIRED_BYTES {
            keep_known(&mut last, &self.retired);
            self.retired.merge(&last);
        } else {
            self.retired = all;
        }
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

    /// What one living worker sent last, value by value; nothing until it has sent something.
    pub(crate) fn of_worker(&self, pid: i32) -> Vec<Metric> {
        let snapshot = self.living.iter().find(|(known, _)| *known == pid).map(|(_, snapshot)| snapshot);
        let samples = snapshot.into_iter().flat_map(Snapshot::samples);
        samples.map(|(name, value)| Metric { name, value }).collect()
    }
}

/// The answer to a worker that wants to know, unless `text` is too long for a frame; a question without an answer ends as a 503.
pub(crate) fn answer(request: u64, text: &str) -> Option<ToWorker> {
    let fits = text.len() + FRAME_OVERHEAD_BYTES <= MAX_FRAME_BYTES;
    fits.then(|| ToWorker::Metrics { request, text: text.to_owned() })
}

/// Brings counts to steps that add up exactly, and leaves out what cannot be added up or carried to the next supervisor.
fn settle(snapshot: &mut Snapshot) {
    for family in &mut snapshot.families {
        family.series.retain(|series| is_sound(&series.value));
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

/// JSON has no numbers but finite ones, and every bucket needs its count. Whoever writes metrics by hand may not know that.
fn is_sound(value: &Value) -> bool {
    match value {
        Value::Counter(value) | Value::Gauge(value) => value.is_finite(),
        Value::Histogram { bounds, counts, sum } => {
            counts.len() == bounds.len() + 1 && sum.is_finite() && bounds.iter().all(|bound| bound.is_finite())
        }
    }
}

/// Leaves in `snapshot` only what `known` has, too.
fn keep_known(snapshot: &mut Snapshot, known: &Snapshot) {
    for family in &mut snapshot.families {
        let namesake = known.families.iter().find(|candidate| candidate.name == family.name);
        let series = namesake.map(|family| family.series.as_slice()).unwrap_or_default();
        family.series.retain(|one| series.iter().any(|candidate| candidate.labels == one.labels));
    }
    snapshot.families.retain(|family| !family.series.is_empty());
}

#[cfg(test)]
mod tests;
