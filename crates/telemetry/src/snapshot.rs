//! The values of all metrics at one moment: what workers send, what is added up over them, and what Prometheus reads.

use std::fmt::Write;
use std::mem::discriminant;

use serde::{Deserialize, Serialize};

/// All metrics at one moment. Families are in order of their names, series in order of their labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// One for each name.
    pub families: Vec<Family>,
}

/// The metrics of one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// What it says, for people.
    pub help: String,
    /// How gauges are merged; counters and histograms always add up.
    pub combine: Combine,
    /// One for each set of labels.
    pub series: Vec<Series>,
}

/// One metric: a name with its labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Names and values, in order of the names.
    pub labels: Vec<(String, String)>,
    /// What it was.
    pub value: Value,
}

/// What a metric was at the moment of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Grows only.
    Counter(f64),
    /// Goes up and down.
    Gauge(f64),
    /// Seen values by size.
    Histogram {
        /// Upper bounds, inclusive, ascending.
        bounds: Vec<f64>,
        /// Values in each bucket alone; one more than bounds, for what is above them all.
        counts: Vec<u64>,
        /// Sum of all values.
        sum: f64,
    },
}

/// What the same gauge of several workers is together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Combine {
    /// Connections, bytes.
    Sum,
    /// The worst lag.
    Max,
    /// The earliest start.
    Min,
}

impl Snapshot {
    /// The content type of [`Snapshot::render`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Adds another worker's snapshot to this one. The order of merging does not matter, as long as both know a name as the same kind of
    /// metric with the same buckets. Two releases may not: then a value of another kind is left out, and the counts of other
    /// buckets go where their upper bound belongs, so that totals stay right and no value appears smaller than it was.
    pub fn merge(&mut self, other: &Self) {
        for family in &other.families {
            match self.families.binary_search_by(|known| known.name.cmp(&family.name)) {
                Ok(index) => self.families[index].merge(family),
                Err(index) => self.families.insert(index, family.clone()),
            }
        }
    }

    /// Every metric as its name with its labels, and its value. Of a histogram it is the number of values and their sum.
    pub fn samples(&self) -> Vec<(String, f64)> {
        let mut samples = Vec::new();
        for Family { name, series, .. } in &self.families {
            for Series { labels, value } in series {
                let mut add =
                    |suffix: &str, value| samples.push((full_name(name, suffix, &render_labels(labels), ""), value));
                match value {
                    Value::Counter(value) | Value::Gauge(value) => add("", *value),
                    Value::Histogram { counts, sum, .. } => {
                        add("_count", counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count)) as f64);
                        add("_sum", *sum);
                    }
                }
            }
        }
        samples
    }

    /// Prometheus's text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for family in &self.families {
            family.render(&mut text);
        }
        text
    }
}

impl Family {
    fn merge(&mut self, other: &Self) {
        let kind = self.series.first().map(|series| discriminant(&series.value));
        let same_kind = |value| kind.is_none_or(|kind| kind == discriminant(value));
        for more in other.series.iter().filter(|more| same_kind(&more.value)) {
            match self.series.binary_search_by(|known| known.labels.cmp(&more.labels)) {
                Ok(index) => self.series[index].value.merge(&more.value, self.combine),
                Err(index) => self.series.insert(index, more.clone()),
            }
        }
    }

    fn render(&self, text: &mut String) {
        let Some(first) = self.series.first() else { return };
        let kind = match first.value {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram { .. } => "histogram",
        };
        let name = &self.name;
        let help = self.help.replace('\\', r"\\").replace('\n', r"\n");
        append(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for Series { labels, value } in &self.series {
            let labels = render_labels(labels);
            match value {
                Value::Counter(value) | Value::Gauge(value) => sample(text, name, "", &labels, "", *value),
                Value::Histogram { bounds, counts, sum } => {
                    let mut total = 0_u64;
                    for (count, bound) in counts.iter().zip(bounds.iter().chain([&f64::INFINITY])) {
                        total = total.saturating_add(*count);
                        sample(text, name, "_bucket", &labels, &format!("le=\"{}\"", number(*bound)), total as f64);
                    }
                    sample(text, name, "_sum", &labels, "", *sum);
                    sample(text, name, "_count", &labels, "", total as f64);
                }
            }
        }
    }
}

impl Value {
    fn merge(&mut self, other: &Self, combine: Combine) {
        match (self, other) {
            (Self::Counter(value), Self::Counter(more)) => *value += more,
            (Self::Gauge(value), Self::Gauge(more)) => {
                *value = match combine {
                    Combine::Sum => *value + more,
                    Combine::Max => value.max(*more),
                    Combine::Min => value.min(*more),
                }
            }
            (
                Self::Histogram { bounds, counts, sum },
                Self::Histogram { bounds: more_bounds, counts: more_counts, sum: more_sum },
            ) => {
                for (bound, count) in more_bounds.iter().chain([&f64::INFINITY]).zip(more_counts) {
                    let total = &mut counts[bounds.partition_point(|known| known < bound)];
                    *total = total.saturating_add(*count);
                }
                *sum += more_sum;
            }
            // Another kind under the same name: only another release can mean that, and it will be gone soon. The family has left
            // it out already.
            (_, _) => {}
        }
    }
}

fn sample(text: &mut String, name: &str, suffix: &str, labels: &str, more: &str, value: f64) {
    append(text, format_args!("{} {}\n", full_name(name, suffix, labels, more), number(value)));
}

fn full_name(name: &str, suffix: &str, labels: &str, more: &str) -> String {
    let comma = if labels.is_empty() || more.is_empty() { "" } else { "," };
    let (open, close) = if labels.is_empty() && more.is_empty() { ("", "") } else { ("{", "}") };
    format!("{name}{suffix}{open}{labels}{comma}{more}{close}")
}

fn render_labels(labels: &[(String, String)]) -> String {
    let escape = |value: &str| value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    labels.join(",")
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    value.to_string()
}

fn append(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string never fails");
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
