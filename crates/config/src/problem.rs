//! What is wrong with a configuration or probably not meant, for people to read.

use std::fmt;

use crate::values::masked;

/// Everything that is wrong, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, `file`, `environment` or `command line`.
    pub place: String,
    /// What is wrong, without passwords.
    pub message: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
    pub(crate) excerpt: Option<Excerpt>,
}

/// What is valid and yet probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Names the kind of warning. Programs may rely on it.
    pub code: &'static str,
    /// What may come of it, without passwords.
    pub message: String,
}

/// The line that a problem is in, and which part of it to underline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    number: Option<usize>,
    line: String,
    /// What stands under the part before the caret: blanks and the line's own tabs.
    indent: String,
    width: usize,
}

impl Problems {
    /// All of them; `problems` is not empty.
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    /// Each of them, in the order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl Problem {
    /// A problem with a place as a whole.
    pub(crate) fn with(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), suggestion: None, excerpt: None }
    }
}

impl Warning {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Excerpt {
    /// `before` is the part of the line before what is underlined; `width` counts characters.
    pub(crate) fn new(number: Option<usize>, line: &str, before: &str, width: usize) -> Self {
        let shown = masked(line);
        let indent: String = before.chars().map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
        // With a password taken out, the end of the part is no longer known: underline the rest of the line.
        let width = if shown == line { width } else { shown.chars().count().saturating_sub(indent.chars().count()) };
        Self { number, line: shown, indent, width: width.max(1) }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number.map(|number| number.to_string()).unwrap_or_default();
        let margin = " ".repeat(number.len());
        writeln!(formatter, "{margin} |")?;
        writeln!(formatter, "{number} | {}", self.line)?;
        write!(formatter, "{margin} | {}{}", self.indent, "^".repeat(self.width))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)?;
        let suggestion = self.suggestion.as_ref().map(|name| format!("did you mean `{name}`?"));
        match (&self.excerpt, suggestion) {
            (Some(excerpt), Some(suggestion)) => write!(formatter, "\n{excerpt} {suggestion}"),
            (Some(excerpt), None) => write!(formatter, "\n{excerpt}"),
            (None, Some(suggestion)) => write!(formatter, "; {suggestion}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} [{}]", self.message, self.code)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n\n")?;
            }
            problem.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
