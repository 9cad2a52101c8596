//! A line as it goes out: who wrote it, and how that looks to people and to programs.

mod object;

use std::io::Write;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fleet::Unit;

/// Who writes lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    kind: AuthorKind,
    name: String,
    pid: i32,
    /// `None` for the supervisor, which belongs to none.
    generation: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum AuthorKind {
    Worker,
    Process,
    Supervisor,
}

/// Where a process wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Where lines come from, with everything they have in common already in words.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    author: Author,
    /// `None` for the supervisor's own lines, which are written nowhere else.
    stream: Option<Stream>,
    prefix: String,
    members: String,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `w0| line`.
    Pretty,
    /// One JSON object per line.
    Json,
}

impl Author {
    /// The process `pid` of `unit`, which goes by `name`.
    pub(crate) fn of(unit: Unit, name: String, pid: i32, generation: u32) -> Self {
        let kind = match unit {
            Unit::Worker(_) => AuthorKind::Worker,
            Unit::Process(_) => AuthorKind::Process,
        };
        Self { kind, name, pid, generation: Some(generation) }
    }

    /// A program that is none of the fleet's.
    pub(crate) fn program(name: &str, pid: i32) -> Self {
        Self { kind: AuthorKind::Process, name: name.to_owned(), pid, generation: None }
    }

    /// The supervisor.
    pub(super) fn supervisor(pid: i32) -> Self {
        Self { kind: AuthorKind::Supervisor, name: "supervisor".to_owned(), pid, generation: None }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }
}

impl Origin {
    pub(super) fn new(author: Author, stream: Option<Stream>) -> Self {
        let Author { kind, name, pid, generation } = &author;
        let key = if *kind == AuthorKind::Worker { "worker" } else { "process" };
        let generation = generation.map_or_else(|| "null".to_owned(), |generation| generation.to_string());
        let stream_name = match stream {
            Some(Stream::Stdout) => "\"stdout\"",
            Some(Stream::Stderr) => "\"stderr\"",
            None => "null",
        };
        let quoted = serde_json::Value::from(name.as_str());
        let members = format!("\"{key}\":{quoted},\"pid\":{pid},\"generation\":{generation},\"stream\":{stream_name},");
        Self { prefix: format!("{name}| "), members, stream, author }
    }

    pub(super) fn name(&self) -> &str {
        &self.author.name
    }

    pub(super) fn pid(&self) -> i32 {
        self.author.pid
    }

    pub(super) fn stream(&self) -> Option<Stream> {
        self.stream
    }
}

impl Format {
    /// The one that is meant by a switch.
    pub(super) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Pretty }
    }

    /// Appends `line`, which holds no line feed, and the line feed.
    pub(super) fn write(self, text: &mut Vec<u8>, origin: &Origin, time: Timestamp, line: &[u8]) {
        // Writing to memory does not fail.
        let _ = match self {
            Self::Pretty => write_pretty(text, origin, time, line),
            Self::Json => write_json(text, origin, time, line),
        };
        text.push(b'\n');
    }
}

/// Workers and processes put the time into their lines themselves if they want it there.
fn write_pretty(text: &mut Vec<u8>, origin: &Origin, time: Timestamp, line: &[u8]) -> std::io::Result<()> {
    text.extend_from_slice(origin.prefix.as_bytes());
    if origin.author.kind == AuthorKind::Supervisor {
        write!(text, "{time:.3} ")?;
    }
    text.write_all(line)
}

fn write_json(text: &mut Vec<u8>, origin: &Origin, time: Timestamp, line: &[u8]) -> std::io::Result<()> {
    write!(text, "{{\"time\":\"{time:.3}\",{}", origin.members)?;
    let line = String::from_utf8_lossy(line);
    if object::is_object(&line) {
        write!(text, "\"message\":{line}}}")
    } else {
        text.write_all(b"\"line\":")?;
        serde_json::to_writer(&mut *text, &line)?;
        text.write_all(b"}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn origin(unit: Unit, name: &str) -> Origin {
        Origin::new(Author::of(unit, name.to_owned(), 7, 2), Some(Stream::Stdout))
    }

    fn written(format: Format, origin: &Origin, line: &[u8]) -> String {
        let mut text = Vec::new();
        format.write(&mut text, origin, Timestamp::UNIX_EPOCH, line);
        String::from_utf8(text).unwrap()
    }

    fn json(line: &[u8]) -> Value {
        let text = written(Format::Json, &origin(Unit::Worker(0), "w0"), line);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    #[test]
    fn a_line_tells_who_wrote_it_and_only_the_supervisor_needs_the_time_for_people() {
        let supervisor = Origin::new(Author::supervisor(1), None);
        let cases = [
            (Format::Pretty, origin(Unit::Worker(0), "w0"), "w0| hello\n"),
            (Format::Pretty, supervisor.clone(), "supervisor| 1970-01-01T00:00:00.000Z hello\n"),
            (
                Format::Json,
                origin(Unit::Worker(0), "w0"),
                "{\"time\":\"1970-01-01T00:00:00.000Z\",\"worker\":\"w0\",\"pid\":7,\"generation\":2,\
                 \"stream\":\"stdout\",\"line\":\"hello\"}\n",
            ),
            (
                Format::Json,
                origin(Unit::Process(0), "my \"redis\""),
                "{\"time\":\"1970-01-01T00:00:00.000Z\",\"process\":\"my \\\"redis\\\"\",\"pid\":7,\"generation\":2,\
                 \"stream\":\"stdout\",\"line\":\"hello\"}\n",
            ),
            (
                Format::Json,
                supervisor,
                "{\"time\":\"1970-01-01T00:00:00.000Z\",\"process\":\"supervisor\",\"pid\":1,\"generation\":null,\
                 \"stream\":null,\"line\":\"hello\"}\n",
            ),
        ];
        for (format, origin, expected) in cases {
            assert_eq!(written(format, &origin, b"hello"), expected);
        }
    }

    #[test]
    fn only_what_every_parser_takes_as_an_object_goes_in_as_one() {
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let cases = [
            (r#"{}"#, true),
            (r#" {"level":"info","n":[1,-2.5e3,true,null,{"a":"\u00e9"}]} "#, true),
            (&deep(60), true),
            (&deep(100), false),
            (&deep(8_000), false),
            (r#"{"a":1} {"b":2}"#, false),
            (r#"{"a":1"#, false),
            (r#"{"a":"\ud800"}"#, false),
            (r#"{"a":1e999}"#, false),
            (r#"{"a":NaN}"#, false),
            (r#"["a"]"#, false),
            ("\"a\"", false),
            ("3", false),
            ("", false),
        ];
        for (line, is_object) in cases {
            let value = json(line.as_bytes());
            if is_object {
                assert_eq!(value["message"], serde_json::from_str::<Value>(line).unwrap(), "{line}");
            } else {
                assert_eq!(value["line"], line);
            }
        }
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        assert_eq!(json(b"a \xff b\x00")["line"], "a \u{fffd} b\0");
        assert_eq!(json(b"{\"a\":\"\xff\"}")["message"]["a"], "\u{fffd}");
    }

    proptest! {
        #[test]
        fn every_line_parses_whatever_was_written(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let line: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'\n').collect();
            let value = json(&line);
            prop_assert!(value["line"] == *String::from_utf8_lossy(&line) || value["message"].is_object());
        }

        #[test]
        fn every_line_that_looks_like_json_parses(line in r#"\{("(a|\\u[d0-9]{4}|\\n|é)":[\[\]{},:"0-9eE.+\-a-z ]{0,12},?){0,3}\}?"#) {
            json(line.as_bytes());
        }
    }
}
