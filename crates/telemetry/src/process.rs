//! What the kernel says of this process, under OpenTelemetry's names; those that it ends in `_count`, which Prometheus keeps for
//! histograms, have the names of Prometheus's own clients.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::log::dropped_log_lines;
use crate::snapshot::{Combine, Family, Series, Snapshot, Value};

/// Clock ticks per second in `/proc`: fixed at 100 for programs on every architecture that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time, memory, descriptors, threads and start of this process, and how many log lines it dropped. Merge it into the registry's
/// snapshot. What `/proc` does not tell is left out.
pub fn process_snapshot() -> Snapshot {
    let mut families = vec![family(
        "bellwether_log_lines_dropped_total",
        "Log lines that nobody read in time.",
        Combine::Sum,
        vec![series(&[], Value::Counter(dropped_log_lines() as f64))],
    )];
    families.extend(cpu_and_start().unwrap_or_default());
    families.extend(memory_and_threads().unwrap_or_default());
    families.extend(descriptors());
    families.sort_by(|one, other| one.name.cmp(&other.name));
    Snapshot { families }
}

fn cpu_and_start() -> Option<Vec<Family>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, may contain anything; the third follows its closing parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let seconds = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    let (user, system, started) = (seconds(14)?, seconds(15)?, seconds(22)?);
    let cpu = family(
        "process_cpu_time_seconds_total",
        "CPU time used.",
        Combine::Sum,
        vec![
            series(&[("cpu_mode", "system")], Value::Counter(system)),
            series(&[("cpu_mode", "user")], Value::Counter(user)),
        ],
    );
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    let start = gauge(
        "process_start_time_seconds",
        "When the process started, in Unix time.",
        Combine::Min,
        now - uptime + started,
    );
    Some(vec![cpu, start])
}

fn memory_and_threads() -> Option<Vec<Family>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let rss = value("VmRSS:")? * 1024.0;
    Some(vec![
        gauge("process_memory_usage_bytes", "Resident memory.", Combine::Sum, rss),
        gauge("process_threads", "Threads.", Combine::Sum, value("Threads:")?),
    ])
}

fn descriptors() -> Option<Family> {
    // Linux 6.2 tells the number as the directory's size; before, somebody has to count, and opens one more to do so.
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    let open = if told > 0 { told } else { fs::read_dir("/proc/self/fd").ok()?.count() as u64 - 1 };
    Some(gauge("process_open_fds", "Open descriptors.", Combine::Sum, open as f64))
}

fn gauge(name: &str, help: &str, combine: Combine, value: f64) -> Family {
    family(name, help, combine, vec![series(&[], Value::Gauge(value))])
}

fn series(labels: &[(&str, &str)], value: Value) -> Series {
    Series { labels: labels.iter().map(|&(name, label)| (name.to_owned(), label.to_owned())).collect(), value }
}

fn family(name: &str, help: &str, combine: Combine, series: Vec<Series>) -> Family {
    Family { name: name.to_owned(), help: help.to_owned(), combine, series }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_cpu_memory_and_descriptors() {
        let snapshot = process_snapshot();
        let value = |name: &str| {
            let family = snapshot.families.iter().find(|family| family.name == name).unwrap();
            match family.series[0].value {
                Value::Counter(value) | Value::Gauge(value) => value,
                Value::Histogram { .. } => panic!("{name} is a histogram"),
            }
        };
        assert!(value("process_memory_usage_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_time_seconds_total") >= 0.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-1.0..600.0).contains(&age), "started {age} s ago");
    }

    #[test]
    fn the_oldest_of_several_processes_tells_the_start() {
        let mut snapshot = process_snapshot();
        let mut older = snapshot.clone();
        for family in &mut older.families {
            for series in &mut family.series {
                if let Value::Gauge(value) = &mut series.value {
                    *value /= 2.0;
                }
            }
        }
        snapshot.merge(&older);
        let start = snapshot.families.iter().find(|family| family.name == "process_start_time_seconds");
        let expected = older.families.iter().find(|family| family.name == "process_start_time_seconds");
        assert_eq!(start, expected);
    }
}
