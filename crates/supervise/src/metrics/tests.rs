//! Tests of adding up over workers that come and go.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use telemetry::{Registry, Value};

use super::*;

/// Every counter and every part of a histogram in `text`, by its name with labels.
fn monotonic(text: &str) -> BTreeMap<String, f64> {
    let is_monotonic = |name: &str| {
        let name = name.split('{').next().unwrap();
        ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix))
    };
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    samples
        .filter(|(name, _)| is_monotonic(name))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// A worker that has answered `requests` of one kind and uses some memory.
fn worker(label: &str, requests: u64) -> Snapshot {
    let registry = Registry::new();
    registry.counter("requests_total", "Requests.", &[("kind", label)]).add(requests);
    registry.gauge("memory_bytes", "Memory.", &[]).set(100.0);
    let durations = registry.histogram("seconds", "Time.", &[], &[0.1, 1.0]);
    (0..requests).for_each(|_| durations.record(0.5));
    registry.snapshot()
}

#[test]
fn what_the_dead_have_counted_stays_and_their_gauges_go() {
    let mut totals = Totals::default();
    totals.update(10, worker("old", 1));
    totals.update(10, worker("old", 3));
    totals.update(11, worker("new", 4));
    let before = totals.text(&Snapshot::default());
    assert_eq!(value(&before, "memory_bytes"), Some(200.0));
    totals.ended(10);
    totals.ended(10);
    totals.ended(12);
    let after = totals.text(&Snapshot::default());
    assert_eq!(monotonic(&after), monotonic(&before));
    assert_eq!(value(&after, "memory_bytes"), Some(100.0));
    assert_eq!(value(&after, "requests_total{kind=\"old\"}"), Some(3.0), "only the dead had this label");
    assert_eq!((value(&after, "seconds_count"), value(&after, "seconds_sum")), (Some(7.0), Some(3.5)));
}

#[test]
fn the_text_has_every_family_once_with_its_help_and_the_supervisor_s_own() {
    let own = Registry::new();
    own.counter("bellwether_reloads_total", "Reloads.", &[("result", "done")]).inc();
    let mut totals = Totals::default();
    totals.update(10, worker("a", 1));
    totals.ended(10);
    totals.update(11, worker("a", 2));
    let expected = r##"# HELP bellwether_reloads_total Reloads.
# TYPE bellwether_reloads_total counter
bellwether_reloads_total{result="done"} 1
# HELP memory_bytes Memory.
# TYPE memory_bytes gauge
memory_bytes 100
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{kind="a"} 3
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{le="0.1"} 0
seconds_bucket{le="1"} 3
seconds_bucket{le="+Inf"} 3
seconds_sum 1.5
seconds_count 3
"##;
    assert_eq!(totals.text(&own.snapshot()), expected);
}

#[test]
fn a_name_that_another_release_means_otherwise_keeps_its_counter() {
    let other = Registry::new();
    other.gauge("requests_total", "Requests.", &[]).set(1.0);
    let mut totals = Totals::default();
    totals.update(11, worker("a", 5));
    totals.update(10, other.snapshot());
    let counted = |totals: &Totals| value(&totals.text(&Snapshot::default()), "requests_total{kind=\"a\"}");
    assert_eq!(counted(&totals), Some(5.0));
    totals.ended(11);
    assert_eq!(counted(&totals), Some(5.0));
}

#[test]
fn one_worker_is_described_by_its_own_values() {
    let mut totals = Totals::default();
    totals.update(10, worker("a", 2));
    totals.update(11, worker("a", 7));
    let described = totals.of_worker(10);
    let described: Vec<(&str, f64)> = described.iter().map(|metric| (metric.name.as_str(), metric.value)).collect();
    let expected =
        [("memory_bytes", 100.0), ("requests_total{kind=\"a\"}", 2.0), ("seconds_count", 2.0), ("seconds_sum", 1.0)];
    assert_eq!(described, expected);
    assert!(totals.of_worker(12).is_empty());
}

#[test]
fn values_that_json_cannot_carry_do_not_keep_a_supervisor_from_its_upgrade() {
    let registry = Registry::new();
    [f64::NAN, f64::INFINITY]
        .iter()
        .zip(["a", "b"])
        .for_each(|(&value, name)| registry.gauge(name, "G.", &[]).set(value));
    registry.gauge("c", "C.", &[]).set(0.1);
    let mut totals = Totals::default();
    totals.update(10, registry.snapshot());
    let text = totals.text(&Snapshot::default());
    let json = serde_json::to_string(&totals).unwrap();
    assert_eq!(serde_json::from_str::<Totals>(&json).unwrap().text(&Snapshot::default()), text);
    assert_eq!(["a", "b", "c"].map(|name| value(&text, name)), [None, None, Some(0.1)]);
}

/// A worker's only series.
fn only(name: &str, value: Value) -> Snapshot {
    let series = vec![telemetry::Series { labels: Vec::new(), value }];
    let (name, help) = (name.to_owned(), "H.".to_owned());
    Snapshot { families: vec![telemetry::Family { name, help, combine: telemetry::Combine::Sum, series }] }
}

#[test]
fn series_that_no_registry_makes_are_left_out() {
    let histogram = |bounds: &[f64], counts: &[u64], sum| {
        let (bounds, counts) = (bounds.to_vec(), counts.to_vec());
        Value::Histogram { bounds, counts, sum }
    };
    let table = [
        Value::Counter(f64::NAN),
        Value::Counter(f64::INFINITY),
        histogram(&[1.0, 2.0], &[], 0.0),
        histogram(&[1.0], &[1, 2, 3], 0.0),
        histogram(&[f64::NAN], &[1, 2], 0.0),
        histogram(&[1.0], &[1, 2], f64::NAN),
    ];
    for value in table {
        let mut totals = Totals::default();
        totals.update(10, only("seconds", value.clone()));
        totals.update(11, only("seconds", histogram(&[1.0, 2.0], &[1, 2, u64::MAX], 7.0)));
        totals.update(12, only("seconds", histogram(&[1.0, 2.0], &[1, 2, 3], 7.0)));
        let text = totals.text(&Snapshot::default());
        assert!(text.contains("\nseconds_sum 14\n"), "{value:?}\n{text}");
        let json = serde_json::to_string(&totals).unwrap();
        assert_eq!(serde_json::from_str::<Totals>(&json).unwrap().text(&Snapshot::default()), text, "{value:?}");
    }
}

#[test]
fn names_that_are_made_up_life_after_life_fill_no_memory_and_push_out_no_other() {
    let mut totals = Totals::default();
    for pid in 0..100 {
        totals.update(pid, worker("honest", 1));
        totals.ended(pid);
        let pid = 1_000 + pid;
        totals.update(pid, only(&format!("made_up_{pid}_{}", "x".repeat(100_000)), Value::Counter(1.0)));
        totals.ended(pid);
    }
    let text = totals.text(&Snapshot::default());
    assert!(text.len() <= RETIRED_BYTES, "{}", text.len());
    assert_eq!(value(&text, "requests_total{kind=\"honest\"}"), Some(100.0));
}

#[test]
fn an_answer_that_fits_no_frame_is_none() {
    let mut totals = Totals::default();
    totals.update(10, worker("a", 1));
    let short = totals.text(&Snapshot::default());
    assert_eq!(answer(7, &short), Some(ToWorker::Metrics { request: 7, text: short.clone() }));
    totals.update(10, worker(&"a".repeat(MAX_FRAME_BYTES - short.len()), 1));
    let long = totals.text(&Snapshot::default());
    assert_eq!(answer(7, &long), None);
    let longest = "a".repeat(MAX_FRAME_BYTES - FRAME_OVERHEAD_BYTES);
    assert!(answer(u64::MAX, &longest).is_some_and(|answer| !crate::frame::encode(&answer).is_empty()));
}

/// What happens to a supervisor, drawn small so that workers, labels and buckets meet.
#[derive(Debug, Clone)]
enum Step {
    /// The worker in this slot counts and reports.
    Counts { slot: usize, label: u8, amount: f64 },
    /// The worker in this slot ends; another one with another release's buckets may follow.
    Ends { slot: usize },
    /// The supervisor replaces itself.
    Upgrade,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let counts =
        (0..4_usize, 0..3_u8, 0.0..100.0_f64).prop_map(|(slot, label, amount)| Step::Counts { slot, label, amount });
    vec(
        prop_oneof![6 => counts, 2 => (0..4_usize).prop_map(|slot| Step::Ends { slot }), 1 => Just(Step::Upgrade)],
        1..80,
    )
}

fn count(registry: &Registry, pid: i32, label: u8, amount: f64) -> Snapshot {
    let label = label.to_string();
    let labels = [("label", label.as_str())];
    registry.counter("a_total", "A.", &labels).add(amount as u64);
    registry.gauge("b", "B.", &labels).set(amount);
    registry.histogram("c", "C.", &labels, &[1.0, 10.0]).record(amount);
    let buckets: &[f64] = if pid % 2 == 0 { &[5.0, 50.0] } else { &[2.0, 5.0, 20.0, 50.0] };
    registry.histogram("d", "D.", &labels, buckets).record(amount);
    let mut snapshot = registry.snapshot();
    // CPU time is counted in hundredths of a second, which no binary fraction hits.
    for series in &mut snapshot.families[0].series {
        if let Value::Counter(value) = &mut series.value {
            *value /= 100.0;
        }
    }
    snapshot
}

proptest! {
    #[test]
    fn nothing_that_was_counted_ever_falls_or_vanishes(steps in steps()) {
        let mut totals = Totals::default();
        let mut slots: Vec<(i32, Registry)> = (0..4).map(|slot| (slot, Registry::new())).collect();
        let mut next_pid = 4;
        let mut before = BTreeMap::<String, f64>::new();
        for step in steps {
            match step {
                Step::Counts { slot, label, amount } => {
                    let (pid, registry) = &slots[slot];
                    totals.update(*pid, count(registry, *pid, label, amount));
                }
                Step::Ends { slot } => {
                    totals.ended(slots[slot].0);
                    slots[slot] = (next_pid, Registry::new());
                    next_pid += 1;
                }
                Step::Upgrade => {
                    totals = serde_json::from_str(&serde_json::to_string(&totals).unwrap()).unwrap();
                }
            }
            let after = monotonic(&totals.text(&Snapshot::default()));
            for (name, value) in &before {
                // The buckets of another release may come and go with it; what they count together does not.
                let may_vanish = name.starts_with("d_bucket");
                let now = after.get(name).copied();
                prop_assert!(now.map_or(may_vanish, |now| now >= *value), "{name}: {value} became {now:?}");
            }
            before = after;
        }
    }
}
