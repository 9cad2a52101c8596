//! The table of `supervisor status`: as much of it as the terminal is wide.

use comfy_table::{CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle};
use jiff::Timestamp;
use supervise::status::{LastExit, ProcessStatus, State, Status, SupervisorState, WorkerStatus};

use crate::output::{Color, Output};

/// A column: what stands above it, and what it shows of a worker.
struct Column {
    title: &'static str,
    /// In the place of `title` where the locale cannot show it.
    ascii_title: &'static str,
    alignment: CellAlignment,
    /// Present from this layout on.
    from: Layout,
    text: fn(&WorkerStatus, Timestamp) -> String,
}

/// How many columns are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layout {
    Mini,
    Condensed,
    Full,
}

const fn column(title: &'static str, from: Layout, text: fn(&WorkerStatus, Timestamp) -> String) -> Column {
    Column { title, ascii_title: title, alignment: CellAlignment::Right, from, text }
}

const fn left(column: Column) -> Column {
    Column { alignment: CellAlignment::Left, ..column }
}

const COLUMNS: &[Column] = &[
    column("id", Layout::Mini, |worker, _| worker.id.to_string()),
    column("pid", Layout::Condensed, |worker, _| known(worker.pid, |pid| pid.to_string())),
    column("gen", Layout::Full, |worker, _| worker.generation.to_string()),
    left(column("state", Layout::Mini, |worker, _| state_name(worker.state).to_owned())),
    Column { ascii_title: "rst", ..column("↺", Layout::Mini, |worker, _| worker.restarts.to_string()) },
    column("uptime", Layout::Condensed, |worker, _| known(worker.uptime_seconds, duration)),
    column("cpu", Layout::Mini, |worker, _| known(worker.cpu_percent, |percent| format!("{percent:.0}%"))),
    column("mem", Layout::Mini, |worker, _| known(worker.rss_bytes, size)),
    column("conns", Layout::Full, |worker, _| known(worker.connections, |count| count.to_string())),
    column("req/s", Layout::Condensed, |worker, _| known(worker.requests_per_second, rate)),
    column("p99", Layout::Condensed, |worker, _| known(worker.p99_seconds, latency)),
    column("lag", Layout::Full, |worker, _| known(worker.loop_lag_seconds, latency)),
    left(column("last exit", Layout::Full, |worker, now| {
        known(worker.last_exit.as_ref(), |exit| last_exit(exit, now))
    })),
];

const UNICODE: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('┌', '─', '┬', '┐'))
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .header_separator(LineStyle::new('├', '─', '┼', '┤'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .bottom_border(LineStyle::new('└', '─', '┴', '┘'));

const ASCII: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('+', '-', '+', '+'))
    .header_lines(ContentLineStyle::new('|', '|', '|'))
    .header_separator(LineStyle::new('+', '-', '+', '+'))
    .content_lines(ContentLineStyle::new('|', '|', '|'))
    .bottom_border(LineStyle::new('+', '-', '+', '+'));

/// The table and the lines under it, without a final newline.
pub(crate) fn render(status: &Status, output: &Output, now: Timestamp) -> String {
    let layouts = [Layout::Full, Layout::Condensed, Layout::Mini];
    let tables = layouts.map(|layout| table(status, layout, output, now));
    let fits = |table: &&Table| output.width.is_none_or(|width| width_of(table) <= width);
    let table = tables.iter().find(fits).unwrap_or(&tables[2]);
    let mut lines: Vec<_> = table.lines().collect();
    if output.color {
        color_states(&mut lines, status);
    }
    let width = output.width.unwrap_or(usize::MAX);
    lines.extend(wrapped(summary(status), width));
    lines.extend(status.processes.iter().flat_map(|process| wrapped(process_parts(process), width)));
    lines.join("\n")
}

fn table(status: &Status, layout: Layout, output: &Output, now: Timestamp) -> Table {
    let columns: Vec<_> = COLUMNS.iter().filter(|column| column.from <= layout).collect();
    let title = |column: &&Column| if output.unicode { column.title } else { column.ascii_title };
    let mut table = Table::new();
    table.load_style(if output.unicode { UNICODE } else { ASCII });
    table.set_header(columns.iter().map(title));
    for worker in &status.workers {
        table.add_row(columns.iter().map(|column| (column.text)(worker, now)));
    }
    for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
        shown.set_cell_alignment(column.alignment);
    }
    table
}

fn width_of(table: &Table) -> usize {
    table.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

/// Above the rows are the border, the titles and their border. No cell left of the state holds letters.
fn color_states(lines: &mut [String], status: &Status) {
    for (line, worker) in lines.iter_mut().skip(3).zip(&status.workers) {
        let name = state_name(worker.state);
        *line = line.replacen(name, &state_color(worker.state).paint(name), 1);
    }
}

fn summary(status: &Status) -> Vec<String> {
    let supervisor = &status.supervisor;
    let ready = status.workers.iter().filter(|worker| worker.state == State::Ready).count();
    let state = match supervisor.state {
        SupervisorState::Running => "running",
        SupervisorState::Reloading => "reloading",
        SupervisorState::Draining => "draining",
    };
    vec![
        format!("supervisor {} {state}", supervisor.version),
        format!("pid {}", supervisor.pid),
        format!("up {}", duration(supervisor.uptime_seconds)),
        format!("{ready} of {} workers ready", supervisor.workers_wanted),
        format!("at {}", supervisor.listen.join(", ")),
    ]
}

fn process_parts(process: &ProcessStatus) -> Vec<String> {
    let mut parts = vec![format!("{} {}", process.name, state_name(process.state))];
    parts.extend(process.pid.map(|pid| format!("pid {pid}")));
    parts.extend(process.uptime_seconds.map(|seconds| format!("up {}", duration(seconds))));
    parts.push(format!("{} restarts", process.restarts));
    parts
}

/// The parts with commas between them, on as many lines as the width asks for.
fn wrapped(parts: Vec<String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + part.chars().count() <= width => {
                line.push_str(", ");
                line.push_str(&part);
            }
            _ => lines.push(part),
        }
    }
    lines
}

fn known<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Ready => "ready",
        State::Draining => "draining",
        State::Backoff => "backoff",
        State::Broken => "broken",
        State::Stopped => "stopped",
    }
}

fn state_color(state: State) -> Color {
    match state {
        State::Ready => Color::Green,
        State::Starting => Color::Blue,
        State::Draining | State::Backoff => Color::Yellow,
        State::Broken | State::Stopped => Color::Red,
    }
}

/// In the largest unit that fits, as pm2 does.
fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "m"),
        3_600..86_400 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{count}{unit}")
}

fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / 1024.0 / 1024.0;
    if mebibytes < 1024.0 { format!("{mebibytes:.1}mb") } else { format!("{:.1}gb", mebibytes / 1024.0) }
}

fn rate(per_second: f64) -> String {
    if per_second < 1_000.0 { format!("{per_second:.0}") } else { format!("{:.1}k", per_second / 1_000.0) }
}

fn latency(seconds: f64) -> String {
    let milliseconds = seconds * 1_000.0;
    if milliseconds < 1_000.0 { format!("{milliseconds:.1}ms") } else { format!("{seconds:.1}s") }
}

fn last_exit(exit: &LastExit, now: Timestamp) -> String {
    let how = match (exit.code, exit.signal) {
        (_, Some(signal)) => {
            signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
        }
        (Some(code), None) => format!("exit {code}"),
        (None, None) => "ended".to_owned(),
    };
    match exit.at.parse::<Timestamp>() {
        Ok(at) => format!("{how} {} ago", duration(now.duration_since(at).as_secs_f64().max(0.0))),
        Err(_) => how,
    }
}

#[cfg(test)]
mod tests;
