//! Points in time that come again: a cron expression.

use std::fmt;
use std::str::FromStr;

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions, parse_crontab_with};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A cron expression: minute, hour, day of month, month and day of week, in the system's time zone unless one follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    text: String,
    crontab: Crontab,
}

impl Schedule {
    /// The first moment after `now`; `None` for a date that never comes.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.crontab.find_next(now).ok().map(|next| next.timestamp())
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::System;
        let crontab = parse_crontab_with(text, options).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), crontab })
    }
}

impl TryFrom<String> for Schedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.text
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str, now: &str) -> Option<String> {
        let schedule: Schedule = text.parse().unwrap();
        schedule.next_after(now.parse().unwrap()).map(|next| next.to_string())
    }

    #[test]
    fn the_next_moment_is_strictly_after_now() {
        assert_eq!(next("30 4 * * * UTC", "2026-01-01T04:29:59Z").unwrap(), "2026-01-01T04:30:00Z");
        assert_eq!(next("30 4 * * * UTC", "2026-01-01T04:30:00Z").unwrap(), "2026-01-02T04:30:00Z");
        assert_eq!(next("0 4 * * * Europe/Berlin", "2026-06-01T00:00:00Z").unwrap(), "2026-06-01T02:00:00Z");
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_reason() {
        for text in ["", "61 * * * *", "* * * *", "* * * * * Nowhere/City"] {
            assert!(!text.parse::<Schedule>().unwrap_err().is_empty(), "{text}");
        }
    }
}
