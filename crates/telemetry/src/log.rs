//! Sets up logging for the process.

use std::cell::Cell;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{Filtered, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::Error;
use crate::format::{Format, Style};
use crate::output::{DROPPED, Output};

/// How long a panic waits for its line to be written: the process may be about to end.
const PANIC_PATIENCE: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the last lines.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);

/// What to log and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A level, or `target=level` separated by commas, as in `info,cache=debug`.
    pub level: String,
    /// The kind of line.
    pub format: Format,
    /// Whether pretty lines have colours; only a terminal wants them.
    pub color: bool,
    /// Fields of every JSON record, such as the worker's id.
    pub fields: Vec<(String, String)>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: Format::Pretty, color: false, fields: Vec::new() }
    }
}

/// Keeps the log complete: when it is dropped, the last lines are written, for at most a second.
#[must_use = "lines written just before the end of the process are lost without it"]
pub struct LogGuard {
    output: Output,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.output.flush(EXIT_PATIENCE);
    }
}

/// Logs to stderr through a thread of its own, so that a reader that has stopped reading never stops the caller: up to 1 MiB waits, more is
/// dropped and counted. Panics are logged too, as one record with the request they happened in.
///
/// # Errors
/// When the level makes no sense, or logging is set up already.
pub fn init(config: &LogConfig) -> Result<LogGuard, Error> {
    let filter = parse_level(&config.level)?;
    let output = Output::background(std::io::stderr()).map_err(Error::Thread)?;
    install(config, filter, output)
}

/// [`init`] without a thread, for processes that fork. `writer` is written to at once and must not block: what it does not take is
/// dropped and counted, what it takes in part is completed before the next line.
///
/// # Errors
/// As [`init`].
pub fn init_with_writer(config: &LogConfig, writer: impl Write + Send + 'static) -> Result<LogGuard, Error> {
    let filter = parse_level(&config.level)?;
    install(config, filter, Output::direct(writer))
}

/// Lines dropped by this process because nobody read them.
pub fn dropped_log_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn parse_level(level: &str) -> Result<Targets, Error> {
    let error = || Error::Level { level: level.to_owned() };
    // `Targets` would take a misspelt level for the name of a target and log everything of it, and an empty one for a level.
    let levels = level.split(',').map(|part| part.rsplit('=').next().unwrap_or(part).trim());
    if levels.into_iter().any(|level| level.is_empty() || level.parse::<LevelFilter>().is_err()) {
        return Err(error());
    }
    level.parse().map_err(|_| error())
}

fn install(config: &LogConfig, filter: Targets, output: Output) -> Result<LogGuard, Error> {
    let layer = layer(config, filter, output.clone());
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| Error::AlreadySet)?;
    let log = output.clone();
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        log.flush(PANIC_PATIENCE);
    }));
    Ok(LogGuard { output })
}

/// The layer that writes lines. Spans are switched off where they are made: the request's ids come from the context.
pub(crate) fn layer<S>(
    config: &LogConfig,
    filter: Targets,
    output: Output,
) -> Filtered<Lines, impl Filter<S> + use<S>, S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    use tracing_subscriber::filter::FilterExt;

    let style = Style { format: config.format, color: config.color, fields: config.fields.clone() };
    Lines { style, output }.with_filter(filter.and(filter_fn(|metadata| metadata.is_event())))
}

/// Writes each event as a line.
pub(crate) struct Lines {
    style: Style,
    output: Output,
}

thread_local! {
    /// The memory of the last line, for the next one.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        // Taken, not borrowed: a value may log while it is being formatted.
        let mut line = LINE.take();
        line.clear();
        self.style.write(&mut line, event);
        self.output.write(line.as_bytes());
        LINE.set(line);
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a value that is no text");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        tracing::error!(target: "panic", location, %backtrace, "panicked: {message}");
    } else {
        tracing::error!(target: "panic", location, "panicked: {message}");
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
pub(crate) mod tests;
