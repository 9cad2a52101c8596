//! Tests of merging and rendering.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::metrics::Registry;

#[test]
fn the_text_is_what_prometheus_reads() {
    let registry = Registry::new();
    registry.counter("b_total", "Back\\slash and\nline.", &[("path", "a\"b\\c\nd"), ("code", "200")]).add(3);
    registry.gauge("a", "A gauge.", &[]).set(-1.5);
    let histogram = registry.histogram("c_seconds", "Time.", &[("route", "/")], &[0.1, 2.0]);
    [0.05, 1.0, 1.0, 9.0].iter().for_each(|&value| histogram.record(value));
    let expected = r##"# HELP a A gauge.
# TYPE a gauge
a -1.5
# HELP b_total Back\\slash and\nline.
# TYPE b_total counter
b_total{code="200",path="a\"b\\c\nd"} 3
# HELP c_seconds Time.
# TYPE c_seconds histogram
c_seconds_bucket{route="/",le="0.1"} 1
c_seconds_bucket{route="/",le="2"} 3
c_seconds_bucket{route="/",le="+Inf"} 4
c_seconds_sum{route="/"} 11.05
c_seconds_count{route="/"} 4
"##;
    assert_eq!(registry.snapshot().render(), expected);
}

#[test]
fn values_that_are_no_numbers_have_their_own_names() {
    assert_eq!(
        [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e15, 0.000_5].map(number),
        ["+Inf", "-Inf", "NaN", "1000000000000000", "0.0005"]
    );
}

#[test]
fn gauges_are_combined_as_their_family_says() {
    let check = |combine, expected| {
        let make = |value| {
            let registry = Registry::new();
            registry.gauge_combined("a", "A.", &[], combine).set(value);
            registry.snapshot()
        };
        let mut merged = make(2.0);
        merged.merge(&make(3.0));
        assert_eq!(merged.families[0].series[0].value, Value::Gauge(expected));
    };
    check(Combine::Sum, 5.0);
    check(Combine::Max, 3.0);
    check(Combine::Min, 2.0);
}

#[test]
fn counts_of_other_buckets_keep_their_total_and_never_look_smaller() {
    let histogram = |bounds: &[f64], values: &[f64]| {
        let registry = Registry::new();
        let histogram = registry.histogram("a", "A.", &[], bounds);
        values.iter().for_each(|&value| histogram.record(value));
        registry.snapshot()
    };
    let mut merged = histogram(&[1.0, 10.0], &[0.5]);
    merged.merge(&histogram(&[0.5, 2.0, 20.0], &[0.1, 1.5, 15.0, 99.0]));
    let expected = Value::Histogram { bounds: vec![1.0, 10.0], counts: vec![2, 1, 2], sum: 116.1 };
    assert_eq!(merged.families[0].series[0].value, expected);
}

#[test]
fn a_name_that_became_another_kind_is_left_out() {
    let mut merged = Registry::new().snapshot();
    let (one, other) = (Registry::new(), Registry::new());
    one.counter("a", "A.", &[]).inc();
    other.gauge("a", "A.", &[]).set(9.0);
    merged.merge(&one.snapshot());
    merged.merge(&other.snapshot());
    other.gauge("a", "A.", &[("label", "of another series")]).set(9.0);
    merged.merge(&other.snapshot());
    assert_eq!(merged, one.snapshot());
}

#[test]
fn samples_have_the_names_of_the_text_and_histograms_are_two() {
    let registry = Registry::new();
    registry.counter("a_total", "A.", &[("code", "200")]).add(3);
    registry.gauge("b", "B.", &[]).set(-1.5);
    let histogram = registry.histogram("c_seconds", "C.", &[("route", "/")], &[1.0]);
    [0.5, 2.0].iter().for_each(|&value| histogram.record(value));
    let samples = registry.snapshot().samples();
    let samples: Vec<(&str, f64)> = samples.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let expected = [
        ("a_total{code=\"200\"}", 3.0),
        ("b", -1.5),
        ("c_seconds_count{route=\"/\"}", 2.0),
        ("c_seconds_sum{route=\"/\"}", 2.5),
    ];
    assert_eq!(samples, expected);
}

/// Metrics of a worker, drawn from few names and labels so that workers share some; whole numbers, so that sums are exact.
fn snapshots() -> impl Strategy<Value = Snapshot> {
    vec((0..3_usize, 0..4_usize, 0..1_000_u32), 0..30).prop_map(|draws| {
        let registry = Registry::new();
        for (kind, label, amount) in draws {
            let label = label.to_string();
            let labels = [("label", label.as_str())];
            match kind {
                0 => registry.counter("a_total", "A.", &labels).add(u64::from(amount)),
                1 => registry.gauge("b", "B.", &labels).add(f64::from(amount)),
                _ => registry.histogram("c", "C.", &labels, &[10.0, 100.0]).record(f64::from(amount)),
            }
        }
        registry.snapshot()
    })
}

fn merged(parts: &[&Snapshot]) -> Snapshot {
    let mut sum = Snapshot::default();
    parts.iter().for_each(|part| sum.merge(part));
    sum
}

proptest! {
    #[test]
    fn merging_in_any_order_gives_the_same(a in snapshots(), b in snapshots(), c in snapshots()) {
        prop_assert_eq!(merged(&[&a, &b, &c]), merged(&[&c, &a, &b]));
        prop_assert_eq!(merged(&[&a, &merged(&[&b, &c])]), merged(&[&merged(&[&a, &b]), &c]));
    }

    #[test]
    fn nothing_merged_changes_nothing(a in snapshots()) {
        prop_assert_eq!(&merged(&[&a]), &a);
        prop_assert_eq!(&merged(&[&a, &Snapshot::default()]), &a);
    }

    #[test]
    fn buckets_never_decrease_and_end_with_the_count(a in snapshots(), b in snapshots()) {
        let text = merged(&[&a, &b]).render();
        let mut last = 0.0;
        for line in text.lines().filter(|line| line.starts_with("c_")) {
            let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            if line.contains("_bucket") {
                prop_assert!(value >= last, "{}", text);
                last = value;
            } else if line.starts_with("c_count") {
                prop_assert_eq!(value, last);
                last = 0.0;
            }
        }
    }

    #[test]
    fn a_snapshot_survives_the_way_to_the_supervisor(a in snapshots()) {
        let json = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), a);
    }
}
