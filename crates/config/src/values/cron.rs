//! Points in time that come again, as cron writes them.

use std::fmt;

use cronexpr::{FallbackTimezoneOption, ParseOptions, parse_crontab_with};

use crate::setting::{Kind, Scalar};

/// A cron expression: minute, hour, day of month, month and day of week, in the system's time zone unless one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronExpression(String);

impl CronExpression {
    /// The expression as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CronExpression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Scalar for CronExpression {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a cron expression such as \"30 4 * * *\"";

    fn parse(text: &str) -> Option<Self> {
        Self::reason(text).is_none().then(|| Self(text.to_owned()))
    }

    fn reason(text: &str) -> Option<String> {
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::System;
        let message = parse_crontab_with(text, options).err()?.to_string();
        // The library draws the expression and a caret before the reason.
        let reason = message.rsplit("^ ").next().unwrap_or(&message);
        Some(reason.to_owned())
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_kept_as_it_was_written() {
        for text in ["30 4 * * *", "*/15 * * * MON-FRI", "0 4 * * * Europe/Berlin"] {
            assert_eq!(CronExpression::parse(text).map(|cron| cron.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_reason_on_one_line() {
        let cases = [
            ("61 * * * *", "must be in range 0..=59"),
            ("30 4 * *", "missing days of week"),
            ("30 4 * * * Nowhere/City", "failed to find timezone"),
            ("often", "malformed expression"),
            ("", "cannot be empty"),
        ];
        for (text, part) in cases {
            assert_eq!(CronExpression::parse(text), None, "{text}");
            let reason = CronExpression::reason(text).unwrap();
            assert!(reason.contains(part) && !reason.contains('\n'), "{text}: {reason}");
        }
    }
}
