//! How an entry lies in Redis: a fixed head, then the value's bytes. Whatever does not match is a miss, never an error.
//!
//! Little endian: magic `bw` · format u8 · codec u8 · schema u32 · flags u8 · 3 zero bytes · epoch u64 · version u64 ·
//! expiry u64 (Redis's clock, µs) · payload length u32 · checksum u64 (xxh3 of the head before it and the payload).
//! `lease.lua` reads the first eight bytes, the epoch and the version.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::Xxh3;

/// The bytes before the payload.
pub(crate) const HEAD_BYTES: usize = 48;
/// The longest value, encoded, that is stored anywhere; a longer one is answered but kept by nobody.
pub(crate) const MAX_VALUE_BYTES: usize = 1024 * 1024;

const MAGIC: [u8; 2] = *b"bw";
const FORMAT: u8 = 1;
const CODEC_BINCODE_2: u8 = 1;
const FLAG_ABSENT: u8 = 1;
/// Where the checksum starts; it covers everything before it.
const SUMMED_BYTES: usize = 40;

/// What an entry says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The lane's epoch when it was filled.
    pub(crate) epoch: u64,
    /// The fencing token it was filled with.
    pub(crate) version: u64,
    /// Microseconds of Redis's clock.
    pub(crate) expires_us: u64,
}

/// A decoded entry; no payload means that the row is known to be absent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) head: Head,
    pub(crate) payload: Option<&'a [u8]>,
}

/// Why an entry in Redis cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// Written by another format, codec or schema.
    Foreign,
    /// Cut short, or its checksum is wrong.
    Corrupt,
}

/// The first eight bytes of every entry that this release can read as `schema`.
pub(crate) fn signature(schema: u32) -> [u8; 8] {
    let [a, b, c, d] = schema.to_le_bytes();
    [MAGIC[0], MAGIC[1], FORMAT, CODEC_BINCODE_2, a, b, c, d]
}

/// An entry ready for Redis.
pub(crate) fn seal(schema: u32, head: &Head, payload: Option<&[u8]>) -> Vec<u8> {
    let body = payload.unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend_from_slice(&signature(schema));
    bytes.extend_from_slice(&[if payload.is_none() { FLAG_ABSENT } else { 0 }, 0, 0, 0]);
    bytes.extend_from_slice(&head.epoch.to_le_bytes());
    bytes.extend_from_slice(&head.version.to_le_bytes());
    bytes.extend_from_slice(&head.expires_us.to_le_bytes());
    let length = u32::try_from(body.len()).expect("values are capped at MAX_VALUE_BYTES");
    bytes.extend_from_slice(&length.to_le_bytes());
    let sum = checksum(&bytes, body);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Reads an entry of `schema`; nothing of the payload is parsed before length and checksum agree.
pub(crate) fn open(schema: u32, bytes: &[u8]) -> Result<Envelope<'_>, Mismatch> {
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or(Mismatch::Corrupt)?;
    if head[..8] != signature(schema) {
        return Err(Mismatch::Foreign);
    }
    let length = u32::from_le_bytes(array(head, 36));
    let sum = u64::from_le_bytes(array(head, SUMMED_BYTES));
    if length as usize != body.len() || sum != checksum(&head[..SUMMED_BYTES], body) {
        return Err(Mismatch::Corrupt);
    }
    Ok(Envelope {
        head: Head {
            epoch: u64::from_le_bytes(array(head, 12)),
            version: u64::from_le_bytes(array(head, 20)),
            expires_us: u64::from_le_bytes(array(head, 28)),
        },
        payload: (head[8] & FLAG_ABSENT == 0).then_some(body),
    })
}

/// The version a damaged entry claims, as `lease.lua` reads it.
pub(crate) fn claimed_version(bytes: &[u8]) -> Option<u64> {
    (bytes.len() >= HEAD_BYTES).then(|| u64::from_le_bytes(array(bytes, 20)))
}

/// A value's bytes in the codec of this format.
pub(crate) fn encode<V: Serialize>(value: &V) -> Result<Vec<u8>, bincode::error::EncodeError> {
    bincode::serde::encode_to_vec(value, codec())
}

/// The value in `payload`, if it is one and nothing is left over.
pub(crate) fn decode<V: DeserializeOwned>(payload: &[u8]) -> Option<V> {
    let (value, read) = bincode::serde::decode_from_slice(payload, codec()).ok()?;
    (read == payload.len()).then_some(value)
}

fn codec() -> Configuration<LittleEndian, Varint, Limit<{ 4 * MAX_VALUE_BYTES }>> {
    // The limit keeps a payload of another type from asking for gigabytes.
    bincode::config::standard().with_limit()
}

fn checksum(head: &[u8], body: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(head);
    hasher.update(body);
    hasher.digest()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the caller checked the length")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: Head =
        Head { epoch: 0x0102_0304_0506, version: 1_760_000_000_000_001, expires_us: 1_760_000_060_000_000 };

    /// The released format 1, byte for byte: a change here breaks a rolling deploy.
    #[test]
    fn format_1_is_what_it_was_when_it_was_released() {
        let payload = encode(&("Lamp".to_owned(), 1999_u64, vec![1_u8, 2, 3])).unwrap();
        assert_eq!(hex(&seal(7, &HEAD, Some(&payload))), include_str!("snapshots/envelope_1_present.hex").trim());
        assert_eq!(hex(&seal(7, &HEAD, None)), include_str!("snapshots/envelope_1_absent.hex").trim());
    }

    #[test]
    fn an_entry_of_another_schema_is_foreign() {
        let bytes = seal(7, &HEAD, Some(b"abc"));
        assert_eq!(open(8, &bytes), Err(Mismatch::Foreign));
        assert_eq!(open(7, &bytes[..20]), Err(Mismatch::Corrupt));
    }

    #[test]
    fn bytes_left_over_are_not_a_value() {
        let mut payload = encode(&5_u32).unwrap();
        assert_eq!(decode::<u32>(&payload), Some(5));
        payload.push(0);
        assert_eq!(decode::<u32>(&payload), None);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_a_flipped_bit_never_does(
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            schema: u32, epoch: u64, version: u64, expires_us: u64,
            flip in any::<prop::sample::Index>(), bit in 0..8,
        ) {
            let head = Head { epoch, version, expires_us };
            let mut bytes = seal(schema, &head, payload.as_deref());
            prop_assert_eq!(open(schema, &bytes), Ok(Envelope { head, payload: payload.as_deref() }));
            prop_assert_eq!(claimed_version(&bytes), Some(version));
            let at = flip.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(open(schema, &bytes).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = open(0, &bytes);
            let _ = decode::<Vec<String>>(&bytes);
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
