//! What is shown of a worker, and in which layouts.

use comfy_table::CellAlignment;
use jiff::Timestamp;
use supervise::status::{Status, WorkerStatus};

use crate::figures::{duration, known, last_exit, latency, one_line, rate, size};

/// A column: what stands above it, and what it shows of a worker.
pub(crate) struct Column {
    title: &'static str,
    /// In the place of `title` where the locale cannot show it.
    ascii_title: &'static str,
    pub(crate) alignment: CellAlignment,
    /// Present from this layout on.
    from: Layout,
    text: fn(&WorkerStatus, Timestamp) -> String,
}

/// How many columns are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layout {
    Mini,
    Condensed,
    Full,
    Wide,
}

impl Layout {
    /// The one that shows most first.
    pub(crate) const ALL: [Self; 4] = [Self::Wide, Self::Full, Self::Condensed, Self::Mini];

    /// Whether a row tells the whole of this reason.
    pub(crate) fn shows(self, reason: &str) -> bool {
        self == Self::Wide && one_line(reason).chars().count() <= LONGEST_REASON
    }

    pub(crate) fn columns(self) -> impl Iterator<Item = &'static Column> {
        COLUMNS.iter().filter(move |column| column.from <= self)
    }
}

impl Column {
    pub(crate) fn title(&self, unicode: bool) -> &'static str {
        if unicode { self.title } else { self.ascii_title }
    }

    pub(crate) fn text(&self, worker: &WorkerStatus, now: Timestamp) -> String {
        (self.text)(worker, now)
    }

    /// Whether the column shows the worker's state, which is coloured.
    pub(crate) fn is_state(&self) -> bool {
        self.title == STATE
    }

    /// How wide the column has to be for all workers.
    pub(crate) fn width(&self, status: &Status, unicode: bool, now: Timestamp) -> usize {
        let texts = status.workers.iter().map(|worker| self.text(worker, now).chars().count());
        texts.chain([self.title(unicode).chars().count()]).max().unwrap_or_default()
    }
}

const fn column(title: &'static str, from: Layout, text: fn(&WorkerStatus, Timestamp) -> String) -> Column {
    Column { title, ascii_title: title, alignment: CellAlignment::Right, from, text }
}

const fn left(column: Column) -> Column {
    Column { alignment: CellAlignment::Left, ..column }
}

const STATE: &str = "state";

/// Of what a row tells; the whole table then fits 180 columns.
const LONGEST_REASON: usize = 50;

const ELLIPSIS: &str = "...";

const COLUMNS: &[Column] = &[
    column("id", Layout::Mini, |worker, _| worker.id.to_string()),
    column("pid", Layout::Condensed, |worker, _| known(worker.pid, |pid| pid.to_string())),
    column("gen", Layout::Full, |worker, _| worker.generation.to_string()),
    left(column(STATE, Layout::Mini, |worker, _| worker.state.name().to_owned())),
    Column { ascii_title: "rst", ..column("↺", Layout::Mini, |worker, _| worker.restarts.to_string()) },
    column("uptime", Layout::Condensed, |worker, _| known(worker.uptime_seconds, duration)),
    column("cpu", Layout::Mini, |worker, _| known(worker.cpu_percent, |percent| format!("{percent:.0}%"))),
    column("mem", Layout::Mini, |worker, _| known(worker.rss_bytes, size)),
    column("conns", Layout::Full, |worker, _| known(worker.connections, |count| count.to_string())),
    column("requests", Layout::Wide, |worker, _| known(worker.requests_total, |count| rate(count as f64))),
    column("req/s", Layout::Condensed, |worker, _| known(worker.requests_per_second, rate)),
    column("p99", Layout::Condensed, |worker, _| known(worker.p99_seconds, latency)),
    column("lag", Layout::Full, |worker, _| known(worker.loop_lag_seconds, latency)),
    left(column("last exit", Layout::Full, |worker, now| {
        known(worker.last_exit.as_ref(), |exit| last_exit(exit, now))
    })),
    left(column("why", Layout::Wide, |worker, _| known(worker.reason.as_deref(), beginning))),
];

/// The first words, as far as a row has room for them.
fn beginning(reason: &str) -> String {
    let reason = one_line(reason);
    if reason.chars().count() <= LONGEST_REASON {
        return reason;
    }
    let beginning: String = reason.chars().take(LONGEST_REASON - ELLIPSIS.len()).collect();
    beginning + ELLIPSIS
}
