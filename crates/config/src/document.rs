//! A text that settings are read from, and how a fault in it becomes a problem with a place.

use std::path::Path;

use crate::problem::{Excerpt, Problem};
use crate::setting::Fault;
use crate::values::masked;

/// Where settings come from, with the text they were read from.
#[derive(Debug, Clone)]
pub(crate) enum Document<'a> {
    /// A configuration file.
    File { path: &'a Path, text: &'a str },
    /// One assignment outside of files: an environment variable or a flag.
    Line { place: &'static str, text: String },
}

impl Document<'_> {
    /// The problem that a fault is, seen from outside.
    pub(crate) fn problem(&self, fault: Fault) -> Problem {
        let text = self.text();
        let start = floor(text, fault.span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let before = &text[line_start..start];
        let end = floor(text, fault.span.end.min(line_start + line.len())).max(start);
        let place = match self {
            Self::File { path, .. } => {
                format!("{}:{}:{}", path.display(), self.line_number(start), before.chars().count() + 1)
            }
            Self::Line { place, .. } => (*place).to_owned(),
        };
        let number = match self {
            Self::File { .. } => Some(self.line_number(start)),
            Self::Line { .. } => None,
        };
        let width = text[start..end].chars().count();
        Problem {
            place,
            message: masked(&fault.message),
            suggestion: fault.suggestion,
            excerpt: Some(Excerpt::new(number, line, before, width)),
        }
    }

    /// The number of the line that a byte is in, from 1.
    pub(crate) fn line_number(&self, offset: usize) -> usize {
        let text = self.text();
        text[..floor(text, offset)].matches('\n').count() + 1
    }

    fn text(&self) -> &str {
        match self {
            Self::File { text, .. } => text,
            Self::Line { text, .. } => text,
        }
    }
}

/// The nearest boundary of a character at or before `offset`.
fn floor(text: &str, offset: usize) -> usize {
    text.floor_char_boundary(offset.min(text.len()))
}
