//! How many workers to run.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde_json::json;

use crate::setting::{Kind, Scalar};

/// How many workers to run, before the number of usable cores is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One per usable core.
    Max,
    /// Exactly so many.
    Count(NonZeroU32),
    /// So many fewer than there are usable cores, but at least one.
    Less(NonZeroU32),
}

impl Workers {
    /// The number of workers on a machine with `cores` usable cores.
    pub fn on(self, cores: u32) -> u32 {
        match self {
            Self::Max => cores.max(1),
            Self::Count(count) => count.get(),
            Self::Less(fewer) => cores.saturating_sub(fewer.get()).max(1),
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => formatter.write_str("max"),
            Self::Count(count) => write!(formatter, "{count}"),
            Self::Less(fewer) => write!(formatter, "-{fewer}"),
        }
    }
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("expected {}", Self::EXPECTED))
    }
}

impl Scalar for Workers {
    const KIND: Kind = Kind::IntegerOrText;
    const EXPECTED: &'static str = "a number of workers, \"max\", or \"-N\" for N fewer than there are cores";

    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('-') {
            _ if text == "max" => Some(Self::Max),
            Some(fewer) => fewer.parse().ok().map(Self::Less),
            None => text.parse().ok().map(Self::Count),
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "type": "integer" }, { "type": "string", "pattern": "^(max|-?[1-9][0-9]*)$" }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_follows_the_cores_as_asked() {
        let cases = [
            ("max", 4, Some(4)),
            ("max", 0, Some(1)),
            ("7", 4, Some(7)),
            ("-1", 4, Some(3)),
            ("-9", 4, Some(1)),
            ("0", 4, None),
            ("-0", 4, None),
            ("--1", 4, None),
            ("many", 4, None),
        ];
        for (text, cores, expected) in cases {
            assert_eq!(Workers::parse(text).map(|workers| workers.on(cores)), expected, "{text}");
        }
    }
}
