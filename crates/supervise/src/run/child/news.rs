//! What one of our own workers has said within a turn, with a bound for everything.
//!
//! Workers are not trusted: they may run as another user, and whoever breaks into one must not get further than that. So one that
//! talks without end is worth no more than one that says it once, and what it says is brought to a form that can be shown and kept.

use telemetry::Snapshot;

use crate::frame::{Dependency, FromWorker, Statistics};

/// As many questions of one worker are answered at a time, which is more than scrapers ask. Others end as a 503 there.
const MOST_QUESTIONS: usize = 256;

/// More dependencies than this are no dependencies.
const MOST_DEPENDENCIES: usize = 16;

/// Longer names and details of them are cut.
const MOST_CHARACTERS: usize = 200;

/// Of each thing the newest.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) statistics: Option<Statistics>,
    pub(super) metrics: Option<Snapshot>,
    pub(super) dependencies: Option<Vec<Dependency>>,
    /// The numbers of its requests for the metrics of all.
    pub(super) questions: Vec<u64>,
    /// Requests it has cut.
    pub(super) cut: u64,
}

impl News {
    pub(super) fn add(&mut self, message: FromWorker) {
        match message {
            FromWorker::Statistics(statistics) => self.statistics = Some(plausible(statistics)),
            FromWorker::Metrics(snapshot) => self.metrics = Some(snapshot),
            FromWorker::Dependencies(dependencies) => self.dependencies = Some(presentable(dependencies)),
            FromWorker::MetricsWanted { request } if self.questions.len() < MOST_QUESTIONS => {
                self.questions.push(request);
            }
            FromWorker::MetricsWanted { .. } => {}
            FromWorker::Drained { cut } => self.cut = cut,
        }
    }
}

/// JSON has no numbers but finite ones, so others would keep the next supervisor from reading what this one leaves.
fn plausible(statistics: Statistics) -> Statistics {
    let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
    Statistics {
        requests_per_second: finite(statistics.requests_per_second),
        p99_seconds: statistics.p99_seconds.filter(|seconds| seconds.is_finite()),
        loop_lag_seconds: finite(statistics.loop_lag_seconds),
        ..statistics
    }
}

/// Terminals show them.
fn presentable(mut dependencies: Vec<Dependency>) -> Vec<Dependency> {
    let harmless =
        |text: &str| text.chars().filter(|character| !character.is_control()).take(MOST_CHARACTERS).collect();
    dependencies.truncate(MOST_DEPENDENCIES);
    for Dependency { name, detail, .. } in &mut dependencies {
        (*name, *detail) = (harmless(name), harmless(detail));
    }
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_worth_no_more_than_the_newest_of_each_kind() {
        let mut news = News::default();
        for number in 0..10_000 {
            news.add(FromWorker::MetricsWanted { request: number });
            news.add(FromWorker::Statistics(Statistics { connections: number, ..Statistics::default() }));
            news.add(FromWorker::Drained { cut: number });
        }
        assert_eq!(news.statistics.map(|statistics| statistics.connections), Some(9_999));
        assert_eq!(news.cut, 9_999);
        assert_eq!(news.questions, (0..MOST_QUESTIONS as u64).collect::<Vec<_>>());
    }

    #[test]
    fn numbers_that_are_none_do_not_get_in() {
        let mut news = News::default();
        let statistics = Statistics {
            requests_per_second: f64::NAN,
            p99_seconds: Some(f64::INFINITY),
            loop_lag_seconds: f64::NEG_INFINITY,
            ..Statistics::default()
        };
        news.add(FromWorker::Statistics(statistics));
        assert_eq!(news.statistics, Some(Statistics::default()));
    }

    #[test]
    fn dependencies_are_few_and_short_and_cannot_move_the_cursor() {
        let dependency = Dependency { name: "re\u{1b}[2Jdis\n".to_owned(), works: true, detail: "x".repeat(100_000) };
        let mut news = News::default();
        news.add(FromWorker::Dependencies(vec![dependency; 1_000]));
        let dependencies = news.dependencies.unwrap();
        assert_eq!(dependencies.len(), MOST_DEPENDENCIES);
        assert_eq!(dependencies[0].name, "re[2Jdis");
        assert_eq!(dependencies[0].detail.len(), MOST_CHARACTERS);
    }
}
