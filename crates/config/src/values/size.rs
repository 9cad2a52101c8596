//! Sizes in bytes as text: `"64MiB"`.

use std::fmt;

use serde_json::json;

use crate::setting::{Kind, Scalar};

/// Units from the largest to the smallest; the binary ones come first so that text prefers them.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many mebibytes.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many million bytes.
    pub const fn megabytes(count: u64) -> Self {
        Self(count * 1_000_000)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |size: u64| self.0 >= size && self.0.is_multiple_of(size);
        match UNITS.iter().find(|(_, size)| fits(*size)) {
            Some((unit, size)) => write!(formatter, "{}{unit}", self.0 / size),
            None => formatter.write_str("0B"),
        }
    }
}

impl Scalar for ByteSize {
    const KIND: Kind = Kind::IntegerOrText;
    const EXPECTED: &'static str = "a size such as \"64MiB\"";

    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|character: char| !character.is_ascii_digit());
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let factor = match unit.trim_start() {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": ["string", "integer"], "pattern": "^[0-9]+ ?([KMGT]iB|[kKMGT]B|B)?$", "minimum": 0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_numbers_with_units() {
        let cases = [
            ("64MiB", Some(64 << 20)),
            ("64 mib", Some(64 << 20)),
            ("1kB", Some(1_000)),
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("MiB", None),
            ("1.5GiB", None),
            ("-1", None),
            ("99999999999TiB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(ByteSize::parse(text).map(ByteSize::bytes), bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).text()), Some(ByteSize(bytes)));
        }
    }
}
