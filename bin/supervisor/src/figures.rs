//! Numbers, times and states as people read them, the same in every view.

use anstream::adapter::strip_str;
use jiff::Timestamp;
use supervise::status::{LastExit, State, SupervisorState};

use crate::output::Color;

/// What stands in the place of a value that is not known.
const UNKNOWN: &str = "-";

/// A value that may not be known.
pub(crate) fn known<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show)
}

pub(crate) fn state_color(state: State) -> Color {
    match state {
        State::Ready => Color::Green,
        State::Starting => Color::Blue,
        State::Draining | State::Backoff => Color::Yellow,
        State::Broken | State::Stopped => Color::Red,
    }
}

pub(crate) fn supervisor_state_name(state: SupervisorState) -> &'static str {
    match state {
        SupervisorState::Running => "running",
        SupervisorState::Reloading => "reloading",
        SupervisorState::Draining => "draining",
    }
}

/// In the largest unit that fits, as pm2 does.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "m"),
        3_600..86_400 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{count}{unit}")
}

pub(crate) fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / 1024.0 / 1024.0;
    if mebibytes < 1024.0 { format!("{mebibytes:.1}mb") } else { format!("{:.1}gb", mebibytes / 1024.0) }
}

/// A number of events, or of events per second.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        ..1_000.0 => format!("{per_second:.0}"),
        ..1_000_000.0 => format!("{:.1}k", per_second / 1_000.0),
        _ => format!("{:.1}M", per_second / 1_000_000.0),
    }
}

pub(crate) fn latency(seconds: f64) -> String {
    let milliseconds = seconds * 1_000.0;
    if milliseconds < 1_000.0 { format!("{milliseconds:.1}ms") } else { format!("{seconds:.1}s") }
}

pub(crate) fn last_exit(exit: &LastExit, now: Timestamp) -> String {
    match ago(&exit.at, now) {
        Some(ago) => format!("{} {ago}", how_it_ended(exit)),
        None => how_it_ended(exit),
    }
}

/// The exit code, or the signal's name.
pub(crate) fn how_it_ended(exit: &LastExit) -> String {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => {
            signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
        }
        (Some(code), None) => format!("exit {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// How long ago a time of the supervisor's was, if it can be read.
pub(crate) fn ago(at: &str, now: Timestamp) -> Option<String> {
    let at: Timestamp = at.parse().ok()?;
    Some(format!("{} ago", duration(now.duration_since(at).as_secs_f64().max(0.0))))
}

/// A line that a worker has had a say in, without colours and whatever else would move the cursor.
pub(crate) fn harmless(line: &str) -> String {
    let text = strip_str(line).to_string().replace('\t', "    ");
    text.chars().filter(|character| !character.is_control()).collect()
}

/// Several such lines.
pub(crate) fn harmless_lines(text: &str) -> String {
    text.lines().map(harmless).collect::<Vec<_>>().join("\n")
}

/// A worker's last words may have several lines where there is room for one.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `text` on lines of at most `width` characters, those after the first indented, broken at spaces where there are any.
pub(crate) fn folded(text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_whitespace().flat_map(|word| pieces(word, width.saturating_sub(indent).max(1))) {
        let length = word.chars().count();
        if used > 0 && !line.trim_start().is_empty() {
            if used + 1 + length <= width {
                line.push(' ');
                used += 1;
            } else {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
                used = indent;
            }
        }
        line.push_str(&word);
        used += length;
    }
    if !line.trim_start().is_empty() {
        lines.push(line);
    }
    lines
}

/// A word that is longer than a line, such as a path, has to be cut somewhere.
fn pieces(word: &str, length: usize) -> Vec<String> {
    let characters: Vec<char> = word.chars().collect();
    characters.chunks(length).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([0.4, 59.9, 60.0, 7_200.0, 200_000.0].map(duration), ["0s", "59s", "1m", "2h", "2d"]);
        assert_eq!([0, 39_950_000, 3 << 30].map(size), ["0.0mb", "38.1mb", "3.0gb"]);
        assert_eq!([0.4, 999.0, 9_812.0, 1_500_000.0].map(rate), ["0", "999", "9.8k", "1.5M"]);
        assert_eq!([0.0031, 2.5].map(latency), ["3.1ms", "2.5s"]);
    }

    #[test]
    fn folded_text_keeps_its_words_and_never_exceeds_the_width() {
        let text = "w2 is broken: exit 78: cannot read /etc/bellwether/bellwether.toml: no such file";
        for width in 8..100 {
            let lines = folded(text, width, 2);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:#?}");
            let characters = |text: &str| text.chars().filter(|each| !each.is_whitespace()).collect::<String>();
            assert_eq!(characters(&lines.concat()), characters(text), "at {width}");
        }
        assert_eq!(folded("one two three", 9, 2), ["one two", "  three"]);
        assert_eq!(folded("", 9, 2), Vec::<String>::new());
    }
}
