//! The page of `supervisor describe`: two columns, with everything that is known of one worker.

use jiff::Timestamp;
use supervise::status::{Description, Metric, WorkerStatus};

use crate::figures::{ago, duration, folded, harmless, how_it_ended, known, latency, rate, size, state_color};
use crate::output::Output;

/// Of the left column, with the space behind it.
const LABEL_WIDTH: usize = 13;

/// The page, without a final newline.
pub(crate) fn render(description: &Description, output: &Output, now: Timestamp) -> String {
    let Description { schema: _, worker, command, executable, user, listen, started_at, exits, metrics } = description;
    let mut page = Page { lines: Vec::new(), width: output.width.unwrap_or(usize::MAX) };
    let state = worker.state.name();
    let painted = if output.color { state_color(worker.state).paint(state) } else { state.to_owned() };
    page.row("worker", &format!("w{}", worker.id));
    page.list("state", vec![painted]);
    worker.reason.iter().for_each(|reason| page.row("reason", reason));
    page.row("generation", &worker.generation.to_string());
    page.row("pid", &known(worker.pid, |pid| pid.to_string()));
    page.row("uptime", &known(worker.uptime_seconds, duration));
    page.row("started", &known(started_at.as_deref(), |at| with_age(at, now)));
    page.row("restarts", &worker.restarts.to_string());
    page.row("command", &command.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" "));
    page.row("executable", executable);
    page.row("user", user.as_deref().unwrap_or("the supervisor's"));
    page.row("listen", &if listen.is_empty() { "-".to_owned() } else { listen.join(", ") });
    usage(&mut page, worker);
    let exits = exits.iter().map(|exit| format!("{:<10} {}", how_it_ended(exit), with_age(&exit.at, now)));
    page.list("exits", exits.collect());
    page.list("metrics", grouped(metrics));
    page.lines.join("\n")
}

fn usage(page: &mut Page, worker: &WorkerStatus) {
    page.row("cpu", &known(worker.cpu_percent, |percent| format!("{percent:.0}%")));
    page.row("memory", &known(worker.rss_bytes, size));
    page.row("connections", &known(worker.connections, |count| count.to_string()));
    page.row("requests", &known(worker.requests_total, |count| count.to_string()));
    page.row("requests/s", &known(worker.requests_per_second, rate));
    page.row("p99", &known(worker.p99_seconds, latency));
    page.row("loop lag", &known(worker.loop_lag_seconds, latency));
}

struct Page {
    lines: Vec<String>,
    width: usize,
}

impl Page {
    /// One value; lines of its own and a narrow terminal make it go on in the right column.
    fn row(&mut self, label: &str, value: &str) {
        let width = self.width.saturating_sub(LABEL_WIDTH).max(20);
        let values = value.lines().flat_map(|line| folded(line, width, 0)).collect();
        self.list(label, values);
    }

    /// Several values, below one another.
    fn list(&mut self, label: &str, values: Vec<String>) {
        let values = if values.is_empty() { vec!["-".to_owned()] } else { values };
        for (index, value) in values.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.lines.push(format!("{label:<LABEL_WIDTH$}{value}"));
        }
    }
}

fn with_age(at: &str, now: Timestamp) -> String {
    ago(at, now).map_or_else(|| at.to_owned(), |ago| format!("{at} ({ago})"))
}

/// As a shell would take it.
fn quoted(argument: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "-_./:=,+@%".contains(character);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// The values of one metric below its name, each with its labels; a metric without labels is one line.
fn grouped(metrics: &[Metric]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut group = String::new();
    for Metric { name, value } in metrics {
        let (name, value) = (&harmless(name), number(*value));
        match name.split_once('{') {
            None => lines.push(format!("{name} {value}")),
            Some((family, labels)) => {
                if family != group {
                    lines.push(family.to_owned());
                }
                lines.push(format!("  {} {value}", labels.trim_end_matches('}')));
            }
        }
        group = name.split('{').next().unwrap_or_default().to_owned();
    }
    lines
}

/// Sums of seconds have more digits than anybody reads.
fn number(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    format!("{rounded}")
}

#[cfg(test)]
mod tests;
