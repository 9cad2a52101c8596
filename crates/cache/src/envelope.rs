//! How an entry lies in Redis: a fixed head, its tags, then the value's bytes. Whatever does not match is a miss, never an error.
//!
//! Little endian: magic `bw` · format u8 · codec u8 · schema u32 · flags u8 · number of tags u8 · 2 zero bytes · epoch u64 ·
//! version u64 · fresh until u64 · expiry u64 (both Redis's clock, µs) · time of the load u32 (µs) · length of tags and payload
//! u32 · checksum u64 (xxh3 of the head before it and all that follows). Each tag: length u8 · name · epoch u64 · sequence number u64. `lease.lua` reads the first eight
//! bytes, the epoch and the version.
//!
//! A payload that LZ4 makes a tenth smaller lies there compressed, its length in four bytes before it.
//!
//! Format 1, which had no tags, is a miss for this release, and this one for the other.

use std::borrow::Cow;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};
use smallvec::SmallVec;
use xxhash_rust::xxh3::Xxh3;

use crate::{coherence::receiver::Position, tags::Tag};

/// The bytes before tags and payload.
pub(crate) const HEAD_BYTES: usize = 60;
/// The longest value, encoded, that is stored anywhere; a longer one is answered but kept by nobody.
pub(crate) const MAX_VALUE_BYTES: usize = 1024 * 1024;

const MAGIC: [u8; 2] = *b"bw";
const FORMAT: u8 = 2;
const CODEC_BINCODE_2: u8 = 1;
const FLAG_ABSENT: u8 = 1;
const FLAG_LZ4: u8 = 2;
/// What is shorter is not worth compressing.
const COMPRESSED_FROM_BYTES: usize = 4 * 1024;
/// Bytes of a tag beside its name.
const TAG_BYTES: usize = 17;
/// Where the checksum starts; it covers everything before it.
const SUMMED_BYTES: usize = 52;

/// What an entry says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The lane's epoch when it was filled.
    pub(crate) epoch: u64,
    /// The fencing token it was filled with.
    pub(crate) version: u64,
    /// Until when it is as good as new, in microseconds of Redis's clock.
    pub(crate) fresh_us: u64,
    /// Until when it may be answered with at all.
    pub(crate) expires_us: u64,
    /// How long its load took, in microseconds.
    pub(crate) load_us: u32,
}

/// A decoded entry; no payload means that the row is known to be absent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) head: Head,
    pub(crate) tags: SmallVec<[Tag<'a>; 4]>,
    pub(crate) payload: Option<Cow<'a, [u8]>>,
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

/// An entry ready for Redis. There are at most 255 tags, and each has at most 255 bytes.
pub(crate) fn seal(schema: u32, head: &Head, tags: &[Tag<'_>], payload: Option<&[u8]>) -> Vec<u8> {
    let compressed = payload.and_then(compress);
    let payload_bytes = compressed.as_deref().or(payload).unwrap_or_default();
    let flags = if payload.is_none() { FLAG_ABSENT } else { 0 } | if compressed.is_some() { FLAG_LZ4 } else { 0 };
    let tags_length: usize = tags.iter().map(|tag| TAG_BYTES + tag.name.len()).sum();
    let length = tags_length + payload_bytes.len();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + length);
    bytes.extend_from_slice(&signature(schema));
    bytes.extend_from_slice(&[flags, tags.len() as u8, 0, 0]);
    bytes.extend_from_slice(&head.epoch.to_le_bytes());
    bytes.extend_from_slice(&head.version.to_le_bytes());
    bytes.extend_from_slice(&head.fresh_us.to_le_bytes());
    bytes.extend_from_slice(&head.expires_us.to_le_bytes());
    bytes.extend_from_slice(&head.load_us.to_le_bytes());
    let length = u32::try_from(length).expect("values are capped at MAX_VALUE_BYTES");
    bytes.extend_from_slice(&length.to_le_bytes());
    // The place of the checksum.
    bytes.extend_from_slice(&[0; 8]);
    for tag in tags {
        bytes.push(tag.name.len() as u8);
        bytes.extend_from_slice(tag.name.as_bytes());
        bytes.extend_from_slice(&tag.position.epoch.to_le_bytes());
        bytes.extend_from_slice(&tag.position.sequence.to_le_bytes());
    }
    bytes.extend_from_slice(payload_bytes);
    let sum = checksum(&bytes[..SUMMED_BYTES], &bytes[HEAD_BYTES..]);
    bytes[SUMMED_BYTES..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads an entry of `schema`; nothing after the head is parsed before length and checksum agree.
pub(crate) fn open(schema: u32, bytes: &[u8]) -> Result<Envelope<'_>, Mismatch> {
    let signature = signature(schema);
    // Compared first: a head of another format may be shorter.
    if bytes.len() >= signature.len() && !bytes.starts_with(&signature) {
        return Err(Mismatch::Foreign);
    }
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or(Mismatch::Corrupt)?;
    let length = u32::from_le_bytes(array(head, 48));
    let sum = u64::from_le_bytes(array(head, SUMMED_BYTES));
    if length as usize != body.len() || sum != checksum(&head[..SUMMED_BYTES], body) {
        return Err(Mismatch::Corrupt);
    }
    let (mut tags, mut payload) = (SmallVec::new(), body);
    for _ in 0..head[9] {
        let (tag, rest) = open_tag(payload).ok_or(Mismatch::Corrupt)?;
        tags.push(tag);
        payload = rest;
    }
    let payload = match head[8] {
        flags if flags & FLAG_ABSENT != 0 => None,
        flags if flags & FLAG_LZ4 != 0 => Some(Cow::Owned(decompress(payload).ok_or(Mismatch::Corrupt)?)),
        _ => Some(Cow::Borrowed(payload)),
    };
    Ok(Envelope {
        head: Head {
            epoch: u64::from_le_bytes(array(head, 12)),
            version: u64::from_le_bytes(array(head, 20)),
            fresh_us: u64::from_le_bytes(array(head, 28)),
            expires_us: u64::from_le_bytes(array(head, 36)),
            load_us: u32::from_le_bytes(array(head, 44)),
        },
        tags,
        payload,
    })
}

/// The payload, compressed, if that pays: by a tenth at least.
fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() < COMPRESSED_FROM_BYTES {
        return None;
    }
    let compressed = lz4_flex::block::compress_prepend_size(payload);
    (compressed.len() <= payload.len() / 10 * 9).then_some(compressed)
}

fn decompress(bytes: &[u8]) -> Option<Vec<u8>> {
    // Nobody is made to reserve more than a value may have.
    let (length, compressed) = lz4_flex::block::uncompressed_size(bytes).ok()?;
    if length > MAX_VALUE_BYTES {
        return None;
    }
    lz4_flex::block::decompress(compressed, length).ok()
}

fn open_tag(bytes: &[u8]) -> Option<(Tag<'_>, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(length.into())?;
    let (numbers, rest) = rest.split_at_checked(2 * size_of::<u64>())?;
    let position =
        Position { epoch: u64::from_le_bytes(array(numbers, 0)), sequence: u64::from_le_bytes(array(numbers, 8)) };
    Some((Tag { name: str::from_utf8(name).ok()?, position }, rest))
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

    const HEAD: Head = Head {
        epoch: 0x0102_0304_0506,
        version: 1_760_000_000_000_001,
        fresh_us: 1_760_000_060_000_000,
        expires_us: 1_760_000_360_000_000,
        load_us: 1_234,
    };

    fn tag(name: &str, sequence: u64) -> Tag<'_> {
        Tag { name, position: Position { epoch: 0x0a0b_0c0d, sequence } }
    }

    /// The released format 2, byte for byte: a change here breaks a rolling deploy.
    #[test]
    fn format_2_is_what_it_was_when_it_was_released() {
        let payload = encode(&("Lamp".to_owned(), 1999_u64, vec![1_u8, 2, 3])).unwrap();
        let tags = [tag("category:lamps", 1_760_000_000_000_005), tag("vendor:7", 9)];
        let present = seal(7, &HEAD, &tags, Some(&payload));
        assert_eq!(hex(&present), include_str!("snapshots/envelope_2_present.hex").trim());
        assert_eq!(hex(&seal(7, &HEAD, &[], None)), include_str!("snapshots/envelope_2_absent.hex").trim());
    }

    /// What the release before this one has left in Redis, and writes beside it during a rolling deploy.
    #[test]
    fn an_entry_of_format_1_is_foreign() {
        for entry in [include_str!("snapshots/envelope_1_present.hex"), include_str!("snapshots/envelope_1_absent.hex")]
        {
            assert_eq!(open(7, &bytes_of(entry.trim())), Err(Mismatch::Foreign));
        }
    }

    #[test]
    fn an_entry_of_another_schema_is_foreign() {
        let bytes = seal(7, &HEAD, &[], Some(b"abc"));
        assert_eq!(open(8, &bytes), Err(Mismatch::Foreign));
        assert_eq!(open(7, &bytes[..20]), Err(Mismatch::Corrupt));
    }

    #[test]
    fn a_long_payload_is_compressed_if_that_pays() {
        let (dull, random): (Vec<u8>, Vec<u8>) =
            (b"a lamp, a lamp, ".repeat(1_000), (0..16_000).map(|_| fastrand::u8(..)).collect());
        let length = |payload: &[u8]| {
            let sealed = seal(7, &HEAD, &[], Some(payload));
            assert_eq!(open(7, &sealed).unwrap().payload.as_deref(), Some(payload));
            sealed.len() - HEAD_BYTES
        };
        assert!(length(&dull) < dull.len() / 10, "{}", length(&dull));
        assert_eq!(length(&random), random.len());
        assert_eq!(length(&dull[..COMPRESSED_FROM_BYTES - 1]), COMPRESSED_FROM_BYTES - 1);
        // The length that the payload claims is not believed.
        assert_eq!(decompress(&[255, 255, 255, 255, 0]), None);
        assert_eq!(decompress(&[]), None);
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
            schema: u32, epoch: u64, version: u64, fresh_us: u64, expires_us: u64, load_us: u32,
            tags in proptest::collection::vec(("\\PC{0,20}", any::<u64>()), 0..6),
            flip in any::<prop::sample::Index>(), bit in 0..8,
        ) {
            let head = Head { epoch, version, fresh_us, expires_us, load_us };
            let tags: Vec<Tag<'_>> = tags.iter().map(|(name, sequence)| tag(name, *sequence)).collect();
            let mut bytes = seal(schema, &head, &tags, payload.as_deref());
            {
                let opened = open(schema, &bytes).unwrap();
                prop_assert_eq!((opened.head, opened.payload.as_deref()), (head, payload.as_deref()));
                prop_assert_eq!(&opened.tags[..], &tags[..]);
            }
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

    fn bytes_of(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
