//! How an event becomes one line of text. Whatever a value contains, a record stays one line, and a value at most 4 KiB.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::request::RequestContext;

/// Longest value, in bytes as written.
const LONGEST_VALUE: usize = 4096;
/// What every JSON record has; a field of such a name gets a prefix.
const RESERVED: [&str; 6] = ["timestamp", "level", "target", "message", "request_id", "trace_id"];

/// The two kinds of log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, target, message, `key=value`.
    Pretty,
    /// For machines: one JSON object per line.
    Json,
}

/// Everything a line is made of besides the event.
#[derive(Debug)]
pub(crate) struct Style {
    pub(crate) format: Format,
    pub(crate) color: bool,
    /// Fields of every JSON record.
    pub(crate) fields: Vec<(String, String)>,
}

impl Style {
    /// Appends the event's line, with its line feed.
    pub(crate) fn write(&self, line: &mut String, event: &Event<'_>) {
        match self.format {
            Format::Pretty => self.write_pretty(line, event),
            Format::Json => self.write_json(line, event),
        }
        line.push('\n');
    }

    fn write_pretty(&self, line: &mut String, event: &Event<'_>) {
        let metadata = event.metadata();
        let level = padded_name(metadata.level());
        let (color, dim, plain) =
            if self.color { (color_of(metadata.level()), "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let now = jiff::Timestamp::now();
        append(line, format_args!("{dim}{now:.3}{plain} {color}{level}{plain} {dim}{}:{plain} ", metadata.target()));
        let mut fields = String::new();
        event.record(&mut Pretty { message: line, fields: &mut fields });
        line.push_str(&fields);
        RequestContext::with_current(|context| {
            if let Some(context) = context {
                let (request, trace) = (context.request_id(), context.trace_id());
                append(line, format_args!(" {dim}request_id={request} trace_id={trace}{plain}"));
            }
        });
    }

    fn write_json(&self, line: &mut String, event: &Event<'_>) {
        let metadata = event.metadata();
        let (now, level) = (jiff::Timestamp::now(), name(metadata.level()));
        append(line, format_args!(r#"{{"timestamp":"{now:.6}","level":"{level}""#));
        json_text(line, "target", format_args!("{}", metadata.target()));
        for (name, value) in &self.fields {
            json_member(line, name);
            json_value(line, format_args!("{value}"));
        }
        RequestContext::with_current(|context| {
            if let Some(context) = context {
                let (request, trace) = (context.request_id(), context.trace_id());
                append(line, format_args!(r#","request_id":"{request}","trace_id":"{trace}""#));
            }
        });
        event.record(&mut Json { line });
        line.push('}');
    }
}

/// Fields for people: the message first, whatever its place among the fields.
struct Pretty<'a> {
    message: &'a mut String,
    fields: &'a mut String,
}

impl Pretty<'_> {
    fn record(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            bounded(self.message, Escape::Text, value);
        } else {
            append(self.fields, format_args!(" {}=", field.name()));
            bounded(self.fields, Escape::Text, value);
        }
    }
}

impl Visit for Pretty<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let bare = !value.is_empty() && !value.contains([' ', '"', '=']);
        if bare || field.name() == "message" {
            self.record(field, format_args!("{value}"));
        } else {
            self.record(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format_args!("{value:?}"));
    }
}

/// Fields for machines: numbers and booleans as such, everything else as text.
struct Json<'a> {
    line: &'a mut String,
}

impl Json<'_> {
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        json_member(self.line, field.name());
        append(self.line, format_args!("{value}"));
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            json_text(self.line, "message", value);
        } else {
            json_member(self.line, field.name());
            json_value(self.line, value);
        }
    }
}

impl Visit for Json<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows neither NaN nor infinity.
        if value.is_finite() { self.plain(field, value) } else { self.text(field, format_args!("{value}")) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

/// The name of a field that is not ours to choose.
fn json_member(line: &mut String, name: &str) {
    let prefix = if RESERVED.contains(&name) { "field." } else { "" };
    append(line, format_args!(",\"{prefix}{name}\":"));
}

fn json_text(line: &mut String, name: &str, value: fmt::Arguments<'_>) {
    append(line, format_args!(",\"{name}\":"));
    json_value(line, value);
}

fn json_value(line: &mut String, value: fmt::Arguments<'_>) {
    line.push('"');
    bounded(line, Escape::Json, value);
    line.push('"');
}

fn append(line: &mut String, text: fmt::Arguments<'_>) {
    // Fails only when a value's own formatting does; the line then lacks it.
    let _ = line.write_fmt(text);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    Text,
    Json,
}

/// Appends a value with everything escaped that a terminal or a parser would act on, cut at [`LONGEST_VALUE`].
fn bounded(line: &mut String, escape: Escape, value: fmt::Arguments<'_>) {
    let mut writer = Bounded { end: line.len() + LONGEST_VALUE, line, escape };
    if writer.write_fmt(value).is_err() {
        line.push('…');
    }
}

struct Bounded<'a> {
    line: &'a mut String,
    end: usize,
    escape: Escape,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let before = self.line.len();
            self.write_escaped(character);
            if self.line.len() > self.end {
                self.line.truncate(before);
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

impl Bounded<'_> {
    fn write_escaped(&mut self, character: char) {
        match (character, self.escape) {
            ('\n', _) => self.line.push_str("\\n"),
            ('\r', _) => self.line.push_str("\\r"),
            ('\t', _) => self.line.push_str("\\t"),
            ('"' | '\\', Escape::Json) => {
                self.line.push('\\');
                self.line.push(character);
            }
            (dangerous, Escape::Text) if is_dangerous(dangerous) => self.line.extend(dangerous.escape_unicode()),
            (dangerous, Escape::Json) if is_dangerous(dangerous) => {
                append(self.line, format_args!("\\u{:04x}", u32::from(dangerous)));
            }
            (harmless, _) => self.line.push(harmless),
        }
    }
}

/// Control characters, line separators, and what turns the direction of writing around. All lie within the first 65,536.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn name(level: &Level) -> &'static str {
    padded_name(level).trim_start()
}

fn padded_name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => " warn",
        Level::INFO => " info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn color_of(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
