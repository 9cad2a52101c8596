//! Tests of the registry and its handles.

use std::time::Instant;

use super::*;

#[test]
fn the_same_name_and_labels_are_the_same_metric_in_any_order() {
    let registry = Registry::new();
    registry.counter("a_total", "A.", &[("x", "1"), ("y", "2")]).inc();
    registry.clone().counter("a_total", "Another help.", &[("y", "2"), ("x", "1")]).add(2);
    registry.counter("a_total", "A.", &[("x", "other")]).inc();
    assert_eq!(registry.counter("a_total", "A.", &[("x", "1"), ("y", "2")]).get(), 3);
    let snapshot = registry.snapshot();
    assert_eq!((snapshot.families.len(), snapshot.families[0].series.len()), (1, 2));
    assert_eq!(snapshot.families[0].help, "A.");
}

#[test]
fn gauges_go_up_and_down() {
    let gauge = Registry::new().gauge("open", "Open.", &[]);
    gauge.add(2.5);
    gauge.add(-1.0);
    assert_eq!(gauge.get(), 1.5);
    gauge.set(7.0);
    assert_eq!(gauge.get(), 7.0);
}

#[test]
fn a_value_on_a_bound_belongs_to_that_bucket() {
    let registry = Registry::new();
    let histogram = registry.histogram("seconds", "Time.", &[], &[0.1, 1.0]);
    [0.0, 0.1, 0.100_001, 1.0, 5.0, f64::NAN, f64::INFINITY].iter().for_each(|&value| histogram.record(value));
    let Value::Histogram { counts, sum, .. } = &registry.snapshot().families[0].series[0].value else {
        panic!("registered as a histogram")
    };
    assert_eq!(counts, &[2, 2, 1]);
    assert!((sum - 6.200_001).abs() < 1e-9);
}

#[test]
fn four_threads_lose_no_count() {
    let registry = Registry::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let counter = registry.counter("a_total", "A.", &[]);
                let gauge = registry.gauge("b", "B.", &[]);
                let histogram = registry.histogram("c", "C.", &[], &[1.0]);
                for _ in 0..10_000 {
                    counter.inc();
                    gauge.add(1.0);
                    histogram.record(1.0);
                }
            });
        }
    });
    let snapshot = registry.snapshot();
    let values: Vec<&Value> = snapshot.families.iter().map(|family| &family.series[0].value).collect();
    let histogram = Value::Histogram { bounds: vec![1.0], counts: vec![40_000, 0], sum: 40_000.0 };
    assert_eq!(values, [&Value::Counter(40_000.0), &Value::Gauge(40_000.0), &histogram]);
}

#[test]
#[should_panic(expected = "a_total is no gauge")]
fn a_name_of_another_kind_is_a_mistake_in_the_code() {
    let registry = Registry::new();
    registry.counter("a_total", "A.", &[]);
    registry.gauge("a_total", "A.", &[("x", "1")]);
}

#[test]
#[should_panic(expected = "has a label that is none")]
fn the_label_of_buckets_is_taken() {
    Registry::new().counter("a_total", "A.", &[("le", "1")]);
}

#[test]
fn names_are_those_that_prometheus_takes() {
    for (name, good) in [("a_b:c9", true), (":a", true), ("9a", false), ("a-b", false), ("", false), ("ä", false)] {
        assert_eq!(is_name(name), good, "{name}");
    }
}

/// The cost of handles is printed rather than asserted: it depends on the machine and the profile.
#[test]
fn a_million_records_take_no_noticeable_time() {
    let histogram = Registry::new().histogram("seconds", "Time.", &[], &LATENCY_BUCKETS);
    let start = Instant::now();
    (0..1_000_000).for_each(|number| histogram.record(f64::from(number) * 1e-5));
    let took = start.elapsed();
    println!("{} ns per record", took.as_nanos() / 1_000_000);
    assert!(took.as_secs() < 5);
}
