//! Trace and span ids, and the header that carries them (W3C Trace Context, Level 1).

use std::fmt;

/// Names a request over all the services it goes through; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// Names one service's part in a trace; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl TraceId {
    pub(crate) fn random() -> Self {
        Self(fastrand::u128(1..))
    }
}

impl SpanId {
    pub(crate) fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// What a `traceparent` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) sampled: bool,
}

impl TraceParent {
    /// `None` for everything that the specification tells us to ignore.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
        let version = hex(bytes.get(..2)?)?;
        // Later versions may append fields; the first one may not.
        let length = bytes.len() == 55 || (version > 0 && bytes.get(55) == Some(&b'-'));
        if !dashes || !length || version == 0xff {
            return None;
        }
        let trace_id = hex(&bytes[3..35]).filter(|&id| id != 0)?;
        let span_id = hex(&bytes[36..52]).filter(|&id| id != 0)?;
        let flags = hex(&bytes[53..55])?;
        let span_id = u64::try_from(span_id).expect("16 hexadecimal digits fit into 64 bits");
        Some(Self { trace_id: TraceId(trace_id), span_id: SpanId(span_id), sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Lower-case hexadecimal digits, as the specification demands; at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    let mut number = 0;
    for &digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn headers_are_taken_or_ignored_as_the_specification_says() {
        let check = |header: &str, taken: bool| {
            assert_eq!(TraceParent::parse(header).is_some(), taken, "{header}");
        };
        check(EXAMPLE, true);
        check(&EXAMPLE.replacen("00", "cc", 1), true);
        check(&format!("{}-what-comes-later", EXAMPLE.replacen("00", "cc", 1)), true);
        check(&format!("{EXAMPLE}-more"), false);
        check(&format!("{}more", EXAMPLE.replacen("00", "cc", 1)), false);
        check(&EXAMPLE.replacen("00", "ff", 1), false);
        check(&EXAMPLE.to_uppercase(), false);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false);
        check(&EXAMPLE[..54], false);
        check("", false);
        check("00-0af7651916cd43dd8448eb211c80319ä-b7ad6b7169203331-01", false);
    }

    #[test]
    fn a_header_is_written_as_it_was_read() {
        let parsed = TraceParent::parse(EXAMPLE).unwrap();
        assert!(parsed.sampled);
        assert_eq!(parsed.to_string(), EXAMPLE);
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(header in "\\PC{0,80}") {
            let _ = TraceParent::parse(&header);
        }

        #[test]
        fn every_id_survives_the_header(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let parent = TraceParent { trace_id: TraceId(trace), span_id: SpanId(span), sampled };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }
    }
}
