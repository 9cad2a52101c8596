//! `[[supervisor.process]]`: a kind of process beside the web workers.

use std::fmt;

use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use crate::keys::PROCESS;
use crate::setting::{Faults, Kind, Scalar, Setting, parse_toml};
use crate::tables::{self, Field, NAME_PATTERN, Table, is_name};

/// More processes of one kind are a mistake rather than a wish.
const MOST_PROCESSES: u32 = 1024;

/// A kind of process beside the web workers, such as a job runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Names it in `status` and before its log lines; unique.
    pub name: ProcessName,
    /// The program and its arguments; never empty.
    pub command: Vec<Word>,
    /// How many of them run; 1 to 1024.
    pub count: u32,
}

/// A process's name: 1 to 64 letters, digits, `-` and `_`, and nobody else's in `status`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessName(String);

/// A program, or one of its arguments. Only an argument may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(String);

impl Process {
    /// The names of the processes that are run: its own for a single one, else with `-0`, `-1` and so on behind it.
    pub fn instances(&self) -> Vec<String> {
        match self.count {
            1 => vec![self.name.0.clone()],
            count => (0..count).map(|index| format!("{}-{index}", self.name)).collect(),
        }
    }
}

impl ProcessName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Word {
    /// The word as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProcessName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Scalar for ProcessName {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a name of 1 to 64 letters, digits, `-` and `_`";

    fn parse(text: &str) -> Option<Self> {
        (is_name(text) && reserved_for(text).is_none()).then(|| Self(text.to_owned()))
    }

    fn reason(text: &str) -> Option<String> {
        reserved_for(text).map(|owner| format!("that is the name of {owner}"))
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn schema() -> serde_json::Value {
        json!({
            "type": "string",
            "pattern": NAME_PATTERN,
            "not": { "pattern": "^(supervisor|w[0-9]+)$" },
        })
    }
}

impl Scalar for Word {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a program or an argument as text";

    /// No program can be given a NUL.
    fn parse(text: &str) -> Option<Self> {
        (!text.contains('\0')).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// Who goes by that name already in `status` and in the log.
fn reserved_for(name: &str) -> Option<&'static str> {
    let number = name.strip_prefix('w').unwrap_or_default();
    if name == "supervisor" {
        Some("the supervisor")
    } else if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        Some("a worker")
    } else {
        None
    }
}

impl Table for Process {
    const KEY: &'static str = PROCESS;
    const ONE: &'static str = "a process";
    const SEVERAL: &'static str = "processes";
    const FIELDS: &'static [Field<Self>] = &[
        Field::required("name", "Appears in `status` and before its log lines.", |process| &mut process.name),
        Field::required("command", "The program, found in PATH, and its arguments. No shell reads it.", |process| {
            &mut process.command
        }),
        Field::optional("count", "How many run; several are called NAME-0, NAME-1 and so on.", |process| {
            &mut process.count
        }),
    ];

    fn unread() -> Self {
        Self { name: ProcessName(String::new()), command: Vec::new(), count: 1 }
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.instances();
        if self.count > 1 {
            names.push(self.name.to_string());
        }
        names
    }

    fn out_of_range(&self) -> Option<(&'static str, &'static str)> {
        if self.command.first().is_none_or(|program| program.0.is_empty()) {
            Some(("command", "a command begins with a program"))
        } else if !(1..=MOST_PROCESSES).contains(&self.count) {
            Some(("count", "a count is between 1 and 1024"))
        } else {
            None
        }
    }
}

impl Setting for Vec<Process> {
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults> {
        *self = tables::read(value)?;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Faults> {
        self.set(&parse_toml(text)?)
    }

    fn value(&self) -> Option<toml::Value> {
        Some(tables::value(self))
    }

    fn schema(&self) -> serde_json::Value {
        tables::schema::<Process>()
    }
}
