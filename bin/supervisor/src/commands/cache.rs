//! `supervisor cache stats`: what all workers together have counted.

use std::collections::BTreeMap;

use serde::Serialize;
use supervise::control::Client;
use supervise::status::Metric;

use crate::arguments::{Global, Json};
use crate::exit::{Exit, Failure};
use crate::figures::{harmless, size};
use crate::output::Output;
use crate::settings::{self, control_socket};

const SCHEMA: &str = "bellwether.cache-stats/v1";
const REQUESTS: &str = "bellwether_cache_requests_total{";

pub(crate) fn stats(global: &Global, arguments: &Json, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    let mut client = Client::connect(&control_socket(global, &loaded.settings))?;
    let mut stats = Stats::new();
    for worker in client.status()?.workers {
        // One that has just ended has nothing to say.
        if let Ok(description) = client.describe(worker.id)? {
            stats.add(&description.metrics);
        }
    }
    if arguments.json {
        let document = serde_json::to_string(&stats).map_err(|error| Failure::new(Exit::Code(70), error))?;
        output.result(document);
    } else {
        output.result(stats.page());
    }
    Ok(Exit::Done)
}

/// What the workers' counters add up to.
#[derive(Debug, Serialize)]
struct Stats {
    schema: &'static str,
    workers: u32,
    memory_bytes: u64,
    /// Invalidations that wait for Redis.
    pending_invalidations: u64,
    namespaces: Vec<Namespace>,
}

/// How often a namespace was read, and what answered.
#[derive(Debug, Default, Serialize)]
struct Namespace {
    name: String,
    /// From a worker's memory.
    memory: u64,
    redis: u64,
    /// By loading.
    loaded: u64,
    /// With an old value, because a new one was slow or could not be had.
    stale: u64,
    failed_loads: u64,
    /// `null` until something was read.
    hit_ratio: Option<f64>,
}

impl Stats {
    fn new() -> Self {
        Self { schema: SCHEMA, workers: 0, memory_bytes: 0, pending_invalidations: 0, namespaces: Vec::new() }
    }

    /// Adds what one worker has counted.
    fn add(&mut self, metrics: &[Metric]) {
        self.workers += 1;
        let mut known: BTreeMap<String, Namespace> =
            self.namespaces.drain(..).map(|namespace| (namespace.name.clone(), namespace)).collect();
        for Metric { name, value } in metrics {
            let value = *value as u64;
            match name.as_str() {
                "bellwether_cache_l1_bytes" => self.memory_bytes += value,
                "bellwether_cache_pending_invalidations" => self.pending_invalidations += value,
                _ => {
                    let Some((namespace, tier, result)) = request(name).filter(|_| value > 0) else { continue };
                    let fresh = || Namespace { name: namespace.to_owned(), ..Namespace::default() };
                    known.entry(namespace.to_owned()).or_insert_with(fresh).count(tier, result, value);
                }
            }
        }
        self.namespaces = known.into_values().collect();
    }

    fn page(&self) -> String {
        let head = ["NAMESPACE", "MEMORY", "REDIS", "LOADED", "STALE", "FAILED", "HIT RATIO"].map(str::to_owned);
        let rows = self.namespaces.iter().map(Namespace::cells);
        let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 7] = std::array::from_fn(width);
        let mut lines: Vec<String> = rows
            .iter()
            .map(|[name, figures @ ..]| {
                let figures = figures.iter().zip(&widths[1..]).map(|(cell, width)| format!("  {cell:>width$}"));
                format!("{name:width$}{}", figures.collect::<String>(), width = widths[0])
            })
            .collect();
        if self.namespaces.is_empty() {
            lines = vec!["nothing has been read yet".to_owned()];
        }
        lines.push(format!("{} in the memory of {} workers", size(self.memory_bytes), self.workers));
        if self.pending_invalidations > 0 {
            lines.push(format!("{} invalidations wait for Redis", self.pending_invalidations));
        }
        lines.join("\n")
    }
}

impl Namespace {
    fn count(&mut self, tier: &str, result: &str, value: u64) {
        match (tier, result) {
            ("l1", "hit" | "negative") => self.memory += value,
            ("l2", "hit" | "negative") => self.redis += value,
            ("loader", "value" | "absent") => self.loaded += value,
            ("loader", "error") => self.failed_loads += value,
            ("l1", "stale") => self.stale += value,
            _ => {}
        }
        let hits = self.memory + self.redis + self.stale;
        let all = hits + self.loaded + self.failed_loads;
        self.hit_ratio = (all > 0).then(|| hits as f64 / all as f64);
    }

    fn cells(&self) -> [String; 7] {
        let ratio = self.hit_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
        let figures = [self.memory, self.redis, self.loaded, self.stale, self.failed_loads];
        let [memory, redis, loaded, stale, failed] = figures.map(|figure| figure.to_string());
        [harmless(&self.name), memory, redis, loaded, stale, failed, ratio]
    }
}

/// Namespace, tier and result of a counter of reads.
fn request(name: &str) -> Option<(&str, &str, &str)> {
    let labels = name.strip_prefix(REQUESTS)?.strip_suffix('}')?;
    let label = |wanted: &str| {
        labels.split(',').find_map(|label| label.strip_prefix(wanted)?.strip_prefix("=\"")?.strip_suffix('"'))
    };
    Some((label("namespace")?, label("tier")?, label("result")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(counts: &[(&str, &str, &str, f64)], memory: f64) -> Vec<Metric> {
        let requests = counts.iter().map(|(namespace, tier, result, value)| Metric {
            name: format!("{REQUESTS}namespace=\"{namespace}\",tier=\"{tier}\",result=\"{result}\"}}"),
            value: *value,
        });
        let memory = Metric { name: "bellwether_cache_l1_bytes".to_owned(), value: memory };
        requests.chain([memory]).collect()
    }

    #[test]
    fn what_all_workers_have_counted_is_one_table() {
        let mut stats = Stats::new();
        stats.add(&metrics(&[("product", "l1", "hit", 900.0), ("product", "loader", "value", 10.0)], 2e6));
        stats.add(&metrics(
            &[("product", "l2", "hit", 90.0), ("list", "loader", "error", 2.0), ("tags", "l1", "hit", 0.0)],
            1e6,
        ));
        let expected = "\
NAMESPACE  MEMORY  REDIS  LOADED  STALE  FAILED  HIT RATIO
list            0      0       0      0       2      0.0 %
product       900     90      10      0       0     99.0 %
2.9mb in the memory of 2 workers";
        assert_eq!(stats.page(), expected);
        let document: serde_json::Value = serde_json::from_str(&serde_json::to_string(&stats).unwrap()).unwrap();
        assert_eq!(document["namespaces"][1]["hit_ratio"], 0.99);
    }

    #[test]
    fn before_anything_was_read_it_says_so() {
        let mut stats = Stats::new();
        stats.add(&metrics(&[("product", "l1", "hit", 0.0)], 0.0));
        assert!(stats.page().starts_with("nothing has been read yet\n"), "{}", stats.page());
    }
}
