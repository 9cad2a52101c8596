//! What the scripts publish: a fixed head (packed in Lua with `struct.pack('<BI8I2I8I8I8I8B')`), then the keys.
//!
//! Little endian: format u8 · epoch u64 · lane u16 · previous sequence number u64 · sequence number u64 · origin u64 ·
//! time u64 (Redis's clock, µs) · kind u8 · keys (bincode). The format is also part of the channel's name, so that two
//! releases can live side by side.

/// The format this release speaks, and the last part of its channels' names.
pub(crate) const FORMAT: u8 = 1;
/// The head's kinds, as the scripts write them.
pub(crate) const KIND_INVALIDATED: u8 = 1;
const KIND_FILLED: u8 = 2;

const HEAD_BYTES: usize = 44;
/// Keys are spread over several messages so that none grows much beyond this.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// One message of a namespace's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) epoch: u64,
    pub(crate) lane: u16,
    /// The sequence number published before this one; how a receiver notices that it missed something.
    pub(crate) previous: u64,
    pub(crate) sequence: u64,
    /// The `Caches` that sent it. Nothing is decided by it: an echo is recognised by its number.
    pub(crate) origin: u64,
    /// Microseconds of Redis's clock.
    pub(crate) time_us: u64,
    pub(crate) news: News,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// These keys were invalidated under the message's sequence number.
    Invalidated(Vec<String>),
    /// A load that others wait for has ended; has no sequence number and invalidates nothing.
    Filled(Vec<String>),
}

impl Message {
    /// `None` for another format, an unknown kind or damage: the receiver then asks Redis where the lanes stand.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(HEAD_BYTES)?;
        let u64_at = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        if head[0] != FORMAT {
            return None;
        }
        let keys = decode_keys(body)?;
        Some(Self {
            epoch: u64_at(1)?,
            lane: u16::from_le_bytes([head[9], head[10]]),
            previous: u64_at(11)?,
            sequence: u64_at(19)?,
            origin: u64_at(27)?,
            time_us: u64_at(35)?,
            news: match head[43] {
                KIND_INVALIDATED => News::Invalidated(keys),
                KIND_FILLED => News::Filled(keys),
                _ => return None,
            },
        })
    }

    /// The bytes that the scripts would pack; the messages without a sequence number are made here.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, keys) = match &self.news {
            News::Invalidated(keys) => (KIND_INVALIDATED, keys),
            News::Filled(keys) => (KIND_FILLED, keys),
        };
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.lane.to_le_bytes());
        for number in [self.previous, self.sequence, self.origin, self.time_us] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(kind);
        bytes.extend_from_slice(&encode_keys(&keys));
        bytes
    }
}

/// The body of a message and of a log entry.
pub(crate) fn encode_keys(keys: &[&str]) -> Vec<u8> {
    bincode::serde::encode_to_vec(keys, bincode::config::standard()).expect("strings always encode, into memory")
}

/// Reads what `encode_keys` wrote.
pub(crate) fn decode_keys(body: &[u8]) -> Option<Vec<String>> {
    let config = bincode::config::standard().with_limit::<{ 1024 * 1024 }>();
    let (keys, read) = bincode::serde::decode_from_slice(body, config).ok()?;
    (read == body.len()).then_some(keys)
}

/// Cuts `keys` into runs that fit into one message each; a longer key gets a message of its own.
pub(crate) fn split<'k, 'a>(keys: &'k [&'a str]) -> impl Iterator<Item = &'k [&'a str]> {
    let mut rest = keys;
    std::iter::from_fn(move || {
        let mut size = 0;
        let fitting = rest.iter().take_while(|key| {
            size += key.len() + 5;
            size <= MAX_BODY_BYTES
        });
        let (run, others) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = others;
        (!run.is_empty()).then_some(run)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(news: News) -> Message {
        Message {
            epoch: 0x0102_0304,
            lane: 11,
            previous: 1_760_000_000_000_000,
            sequence: 1_760_000_000_000_007,
            origin: 42,
            time_us: 1_760_000_123_456_789,
            news,
        }
    }

    /// The released format 1, byte for byte: other releases read it during a rolling deploy.
    #[test]
    fn format_1_is_what_it_was_when_it_was_released() {
        let bytes = message(News::Invalidated(vec!["lamp".into(), "019a".into()])).encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("../snapshots/message_1.hex").trim());
    }

    #[test]
    fn another_format_or_kind_is_not_understood() {
        let good = message(News::Filled(vec!["a".into()])).encode();
        assert!(Message::decode(&good).is_some());
        for (at, value) in [(0, 2), (43, 9)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(Message::decode(&bytes), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written(keys in proptest::collection::vec(".{0,40}", 0..20), filled: bool) {
            let news = if filled { News::Filled(keys) } else { News::Invalidated(keys) };
            let message = message(news);
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            Message::decode(&bytes);
        }

        #[test]
        fn splitting_keeps_every_key_in_order_and_every_message_small(
            lengths in proptest::collection::vec(0_usize..20_000, 0..40),
        ) {
            let keys: Vec<String> = lengths.iter().map(|length| "k".repeat(*length)).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let runs: Vec<&[&str]> = split(&keys).collect();
            prop_assert_eq!(&runs.concat(), &keys);
            for run in runs {
                prop_assert!(run.len() == 1 || encode_keys(run).len() <= MAX_BODY_BYTES + 5);
            }
        }
    }
}
