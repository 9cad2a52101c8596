//! Request rates and latencies of the last minutes, one sample per look at the supervisor, about a second apart.

use std::collections::{BTreeMap, VecDeque};

use supervise::status::{Status, WorkerStatus};

/// As many as the widest terminal shows.
const MOST_SAMPLES: usize = 600;

/// What a chart shows at least, in samples.
const SHOWN_SAMPLES: usize = 180;

/// Of all workers together, and of each.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) total: Series,
    workers: BTreeMap<u32, Series>,
}

/// Samples of one figure's source, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Series {
    samples: VecDeque<Sample>,
    /// How many there ever were.
    taken: usize,
}

/// What was seen at one time; `None` where nothing was known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Sample {
    pub(crate) requests_per_second: Option<f64>,
    /// Of several workers, the highest.
    pub(crate) p99_seconds: Option<f64>,
}

impl History {
    /// Adds what a status says; forgets slots that are no more.
    pub(crate) fn add(&mut self, status: &Status) {
        self.total.push(Sample::of(status.workers.iter()));
        self.workers.retain(|id, _| status.workers.iter().any(|worker| worker.id == *id));
        for worker in &status.workers {
            self.workers.entry(worker.id).or_default();
        }
        for (id, series) in &mut self.workers {
            // During a replacement a slot has two workers.
            series.push(Sample::of(status.workers.iter().filter(|worker| worker.id == *id)));
        }
    }

    /// Nothing is known of this second.
    pub(crate) fn add_gap(&mut self) {
        for series in self.workers.values_mut().chain([&mut self.total]) {
            series.push(Sample::default());
        }
    }

    pub(crate) fn of(&self, id: u32) -> Option<&Series> {
        self.workers.get(&id)
    }
}

impl Sample {
    fn of<'a>(workers: impl Iterator<Item = &'a WorkerStatus>) -> Self {
        workers.fold(Self::default(), |sum, worker| Self {
            requests_per_second: match (sum.requests_per_second, worker.requests_per_second) {
                (Some(one), Some(other)) => Some(one + other),
                (one, other) => one.or(other),
            },
            p99_seconds: highest(sum.p99_seconds, worker.p99_seconds),
        })
    }
}

impl Series {
    pub(crate) fn newest(&self) -> Sample {
        self.samples.back().copied().unwrap_or_default()
    }

    /// The highest value of each of `width` stretches of time, the newest at the end.
    ///
    /// A stretch always holds the same samples, so that a chart moves instead of flickering.
    pub(crate) fn columns(&self, width: usize, figure: fn(&Sample) -> Option<f64>) -> Vec<Option<f64>> {
        let mut columns = vec![None; width];
        let per_column = samples_per_column(width);
        let newest = self.taken.saturating_sub(1) / per_column;
        for (index, sample) in self.samples.iter().enumerate() {
            let column = (self.taken - self.samples.len() + index) / per_column;
            if let Some(shown) = (width + column).checked_sub(newest + 1).and_then(|column| columns.get_mut(column)) {
                *shown = highest(*shown, figure(sample));
            }
        }
        columns
    }

    fn push(&mut self, sample: Sample) {
        if self.samples.len() == MOST_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.taken += 1;
    }
}

/// What a chart of this width shows, in samples.
pub(crate) fn samples_shown(width: usize) -> usize {
    (width * samples_per_column(width)).min(MOST_SAMPLES)
}

fn samples_per_column(width: usize) -> usize {
    SHOWN_SAMPLES.div_ceil(width.max(1))
}

fn highest(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rates: impl IntoIterator<Item = f64>) -> Series {
        let mut series = Series::default();
        for rate in rates {
            series.push(Sample { requests_per_second: Some(rate), p99_seconds: None });
        }
        series
    }

    fn rates(series: &Series, width: usize) -> Vec<Option<f64>> {
        series.columns(width, |sample| sample.requests_per_second)
    }

    #[test]
    fn the_history_is_bounded() {
        let series = series((0..5_000).map(f64::from));
        assert_eq!(series.samples.len(), MOST_SAMPLES);
        assert_eq!(series.newest().requests_per_second, Some(4_999.0));
        assert_eq!(rates(&series, 200)[199], Some(4_999.0));
    }

    #[test]
    fn a_column_keeps_its_value_while_it_moves_to_the_left() {
        // Of 90 columns each stands for two samples.
        let mut series = series([1.0, 2.0, 3.0, 4.0]);
        assert_eq!(rates(&series, 90)[87..], [None, Some(2.0), Some(4.0)]);
        series.push(Sample { requests_per_second: Some(1.0), p99_seconds: None });
        assert_eq!(rates(&series, 90)[87..], [Some(2.0), Some(4.0), Some(1.0)]);
        series.push(Sample { requests_per_second: Some(9.0), p99_seconds: None });
        assert_eq!(rates(&series, 90)[87..], [Some(2.0), Some(4.0), Some(9.0)]);
    }

    #[test]
    fn every_width_shows_three_minutes_at_least() {
        for width in 1..300 {
            assert!(samples_shown(width) >= SHOWN_SAMPLES, "{width} columns show {}", samples_shown(width));
            assert_eq!(rates(&series([1.0]), width).len(), width);
        }
        assert_eq!(rates(&Series::default(), 0), []);
    }
}
