//! Columns for people.

use std::time::Duration;

/// Lines of columns that are as wide as they have to be; nothing trails.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A duration in its two largest units: `14m57s`, `2d3h`, `250ms`.
pub(crate) fn duration(duration: Duration) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let (mut rest, mut text, mut units) = (duration.as_secs(), String::new(), 0);
    for (unit, length) in UNITS {
        if rest >= length && units < 2 {
            text.push_str(&format!("{}{unit}", rest / length));
            units += 1;
        }
        rest %= length;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows = [["NAME".to_owned(), "KEY".to_owned()], ["a".to_owned(), String::new()]];
        assert_eq!(columns(&rows), "NAME  KEY\na");
    }

    #[test]
    fn durations_have_at_most_two_units() {
        let cases = [(0, "0ms"), (250, "250ms"), (897_000, "14m57s"), (3_600_000, "1h"), (90_061_000, "1d1h")];
        for (milliseconds, expected) in cases {
            assert_eq!(duration(Duration::from_millis(milliseconds)), expected);
        }
    }
}
