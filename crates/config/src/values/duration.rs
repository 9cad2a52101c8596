//! Durations as text: `"300ms"`, `"30s"`, `"1h30m"`.

use std::time::Duration;

use serde_json::json;

use crate::setting::{Kind, Scalar};

/// Units from the longest to the shortest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration as it is written in a configuration: `30s`, `300ms`, `1h30m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    <Duration as Scalar>::parse(text)
}

impl Scalar for Duration {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a duration such as \"30s\", \"300ms\" or \"1h30m\"";

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let (mut rest, mut milliseconds) = (text, 0_u64);
        while !rest.is_empty() {
            let (number, after) = split_where(rest, |character| !character.is_ascii_digit());
            let (unit, after) = split_where(after, |character| character.is_ascii_digit());
            let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
            let part = number.parse::<u64>().ok()?.checked_mul(*length)?;
            milliseconds = milliseconds.checked_add(part)?;
            rest = after;
        }
        Some(Self::from_millis(milliseconds))
    }

    /// In the longest unit that gives a whole number.
    fn text(&self) -> String {
        let milliseconds = self.as_millis();
        if milliseconds == 0 {
            return "0s".to_owned();
        }
        let fits = |length: u64| milliseconds.is_multiple_of(u128::from(length));
        UNITS
            .iter()
            .find(|(_, length)| fits(*length))
            .map_or_else(String::new, |(unit, length)| format!("{}{unit}", milliseconds / u128::from(*length)))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" })
    }
}

fn split_where(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let cases = [
            ("30s", Some(30_000)),
            ("300ms", Some(300)),
            ("15m", Some(900_000)),
            ("1h30m", Some(5_400_000)),
            ("2d", Some(172_800_000)),
            ("0s", Some(0)),
            ("30", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("99999999999999999999s", None),
            ("99999999999999999d", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(Duration::parse(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn text_uses_the_longest_whole_unit() {
        for (milliseconds, text) in
            [(900_000, "15m"), (90_000, "90s"), (1_500, "1500ms"), (0, "0s"), (86_400_000, "1d")]
        {
            assert_eq!(Duration::from_millis(milliseconds).text(), text);
        }
    }

    proptest! {
        #[test]
        fn text_reads_back(milliseconds in 0..u64::MAX / 2) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(Duration::parse(&duration.text()), Some(duration));
        }
    }
}
