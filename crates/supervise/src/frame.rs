//! Frames on a stream: a length of four bytes, little endian, then that many bytes of bincode.
//!
//! The first frame in each direction is the protocol's version as two bytes, little endian, so that processes of
//! neighbouring versions understand or refuse one another before anything else is read.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version this build writes. It reads this one and the one before. Whoever meets a message it does not know understands nothing
/// that follows, so a message or a field more is another version.
pub const PROTOCOL_VERSION: u16 = 1;

/// The largest frame that is accepted, without its length: 1 MiB.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

const LENGTH_BYTES: usize = 4;

/// What a message of [`MAX_FRAME_BYTES`] needs in memory, in which one byte may stand for a number of eight. A text that claims to
/// be longer is refused before there is memory for it.
const DECODED_BYTES: usize = 16 * MAX_FRAME_BYTES;

/// What the supervisor tells one of our own workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Take what is queued, accept no more, finish what is in flight, exit.
    Drain {
        /// Why, which decides what `/readyz` says meanwhile.
        kind: DrainKind,
    },
    /// Accept everything that is queued on the listener whose descriptor comes along (`SCM_RIGHTS`), then close it: it is the
    /// shard of a slot that has no worker.
    Adopt,
    /// The answer to [`FromWorker::MetricsWanted`].
    Metrics {
        /// Of the request.
        request: u64,
        /// All workers' metrics in Prometheus's text format.
        text: String,
    },
    /// So many workers divide what is the host's from now on.
    Workers {
        /// As many as are wanted.
        count: u32,
    },
}

/// Why a worker drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainKind {
    /// A successor already serves on the same socket: `/readyz` stays 200.
    Reload,
    /// The service ends: `/readyz` is 503 from now on.
    Stop,
}

/// What one of our own workers tells the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Sent every second.
    Statistics(Statistics),
    /// Nothing is in flight any more; the worker exits next.
    Drained {
        /// Requests that were given up.
        cut: u64,
    },
    /// All metrics of this worker; sent every second and once more before it ends.
    Metrics(telemetry::Snapshot),
    /// What this worker depends on; sent when it is ready and whenever something changes.
    Dependencies(Vec<Dependency>),
    /// Somebody asks this worker for the metrics of all; answered with [`ToWorker::Metrics`].
    MetricsWanted {
        /// Chosen by the worker.
        request: u64,
    },
}

/// Something a worker depends on, such as Redis or the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its name: `redis`, `cache`, `database`.
    pub name: String,
    /// Whether it answers.
    pub works: bool,
    /// For people, without secrets: what kind of server and where.
    pub detail: String,
}

/// How a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// Open connections.
    pub connections: u64,
    /// Since the worker was started.
    pub requests_total: u64,
    /// Over the last second.
    pub requests_per_second: f64,
    /// Of the last second's requests; `None` if there were none.
    pub p99_seconds: Option<f64>,
    /// How much later than planned the loop last ran.
    pub loop_lag_seconds: f64,
}

/// Why a stream of frames cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length above [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// The other side speaks a version this build does not read.
    #[error("protocol version {0} is not understood here, only {PROTOCOL_VERSION} and the one before")]
    Version(u16),
    /// The other side does not begin with its version.
    #[error("the first frame is no version")]
    NoGreeting,
    /// Bytes that are no message.
    #[error("a frame cannot be read")]
    Malformed,
}

/// The first frame each side sends.
pub fn greeting() -> Vec<u8> {
    framed(&PROTOCOL_VERSION.to_le_bytes())
}

/// `message` as one frame.
///
/// # Panics
///
/// If the message is longer than [`MAX_FRAME_BYTES`].
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let payload = bincode::serde::encode_to_vec(message, bincode::config::standard())
        .expect("messages are plain data and serialise");
    framed(&payload)
}

/// `message` as one frame of JSON.
///
/// # Panics
///
/// If the message is longer than [`MAX_FRAME_BYTES`].
pub fn encode_json<T: Serialize>(message: &T) -> Vec<u8> {
    encode_json_if_it_fits(message).expect("the message is one that readers accept")
}

/// `message` as one frame of JSON, unless it is longer than [`MAX_FRAME_BYTES`].
pub(crate) fn encode_json_if_it_fits<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    let payload = serde_json::to_vec(message).expect("messages are plain data and serialise");
    (payload.len() <= MAX_FRAME_BYTES).then(|| framed(&payload))
}

/// Collects bytes and hands out the messages they make up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Decoder<T> {
    buffer: Vec<u8>,
    /// Of the buffer's bytes, those that were handed out. They go with the next push, so that many small frames are not moved once each.
    used: usize,
    greeted: bool,
    messages: PhantomData<T>,
}

impl<T: DeserializeOwned> Decoder<T> {
    /// Expects a [`greeting`] first.
    pub fn new() -> Self {
        Self { buffer: Vec::new(), used: 0, greeted: false, messages: PhantomData }
    }

    /// Adds bytes as they were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.used));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message, or `None` until more bytes have come.
    ///
    /// # Errors
    ///
    /// After an error the stream is of no more use.
    pub fn next_message(&mut self) -> Result<Option<T>, FrameError> {
        let Some(frame) = self.next_payload()? else { return Ok(None) };
        let config = bincode::config::standard().with_limit::<DECODED_BYTES>();
        match bincode::serde::decode_from_slice(&frame, config) {
            Ok((message, used)) if used == frame.len() => Ok(Some(message)),
            _ => Err(FrameError::Malformed),
        }
    }

    /// As [`Decoder::next_message`], of a stream whose messages are JSON. After [`FrameError::Malformed`] the stream may be
    /// read on: its next frame is whole.
    pub fn next_json(&mut self) -> Result<Option<T>, FrameError> {
        let Some(frame) = self.next_payload()? else { return Ok(None) };
        serde_json::from_slice(&frame).map(Some).map_err(|_| FrameError::Malformed)
    }

    /// What was pushed and is no frame yet.
    pub(crate) fn into_rest(mut self) -> Vec<u8> {
        self.buffer.split_off(self.used)
    }

    fn next_payload(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        if !self.greeted {
            let Some(frame) = self.next_frame()? else { return Ok(None) };
            let version = u16::from_le_bytes(frame.try_into().map_err(|_| FrameError::NoGreeting)?);
            if version > PROTOCOL_VERSION || version + 1 < PROTOCOL_VERSION {
                return Err(FrameError::Version(version));
            }
            self.greeted = true;
        }
        self.next_frame()
    }

    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((length, rest)) = self.buffer[self.used..].split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let frame = frame.to_vec();
        self.used += LENGTH_BYTES + length;
        Ok(Some(frame))
    }
}

impl<T: DeserializeOwned> Default for Decoder<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= MAX_FRAME_BYTES, "a message is longer than any reader accepts");
    let mut frame = Vec::with_capacity(LENGTH_BYTES + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = FromWorker> {
        let statistics = (any::<u64>(), any::<u64>(), 0.0..1e9_f64, proptest::option::of(0.0..1e9_f64), 0.0..1e9_f64)
            .prop_map(|(connections, requests_total, requests_per_second, p99_seconds, loop_lag_seconds)| {
                FromWorker::Statistics(Statistics {
                    connections,
                    requests_total,
                    requests_per_second,
                    p99_seconds,
                    loop_lag_seconds,
                })
            });
        prop_oneof![statistics, any::<u64>().prop_map(|cut| FromWorker::Drained { cut }),]
    }

    proptest! {
        #[test]
        fn messages_survive_being_cut_anywhere(
            messages in proptest::collection::vec(message(), 0..20),
            piece_length in 1..200_usize,
        ) {
            let mut bytes = greeting();
            for message in &messages {
                bytes.extend(encode(message));
            }
            let mut decoder = Decoder::<FromWorker>::new();
            let mut received = Vec::new();
            for piece in bytes.chunks(piece_length) {
                decoder.push(piece);
                while let Some(message) = decoder.next_message().unwrap() {
                    received.push(message);
                }
            }
            prop_assert_eq!(received, messages);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::<FromWorker>::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_message() {}
        }
    }

    #[test]
    fn a_stranger_version_is_refused_and_the_one_before_is_read() {
        for (version, understood) in [(0, true), (1, true), (2, false), (u16::MAX, false)] {
            let mut decoder = Decoder::<FromWorker>::new();
            decoder.push(&framed(&u16::to_le_bytes(version)));
            let expected = if understood { Ok(None) } else { Err(FrameError::Version(version)) };
            assert_eq!(decoder.next_message(), expected, "version {version}");
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_bytes_are_awaited() {
        let mut decoder = Decoder::<FromWorker>::new();
        decoder.push(&u32::MAX.to_le_bytes());
        assert_eq!(decoder.next_message(), Err(FrameError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn bytes_after_a_message_within_its_frame_are_refused() {
        let mut decoder = Decoder::<FromWorker>::new();
        decoder.push(&greeting());
        decoder.push(&framed(&[1, 0, 0]));
        assert_eq!(decoder.next_message(), Err(FrameError::Malformed));
    }

    /// A message that promises more text than any machine has, in a frame of a few bytes.
    fn bomb() -> Vec<u8> {
        let message =
            FromWorker::Dependencies(vec![Dependency { name: String::new(), works: true, detail: String::new() }]);
        let mut payload = bincode::serde::encode_to_vec(&message, bincode::config::standard()).unwrap();
        // What follows the variant and the number of dependencies is the length of the name: 253 announces eight bytes.
        payload.truncate(2);
        payload.push(253);
        payload.extend(u64::to_le_bytes(u64::MAX / 4));
        framed(&payload)
    }

    #[test]
    fn a_text_longer_than_any_frame_is_refused_before_there_is_memory_for_it() {
        let mut decoder = Decoder::<FromWorker>::new();
        decoder.push(&greeting());
        decoder.push(&bomb());
        assert_eq!(decoder.next_message(), Err(FrameError::Malformed));
    }

    #[test]
    fn the_longest_frame_of_the_smallest_numbers_is_read() {
        let counts = vec![1; 500_000];
        let bounds = vec![0.5; 50_000];
        let value = telemetry::Value::Histogram { bounds, counts, sum: 1.0 };
        let series = vec![telemetry::Series { labels: Vec::new(), value }];
        let family =
            telemetry::Family { name: "x".to_owned(), help: String::new(), combine: telemetry::Combine::Sum, series };
        let message = FromWorker::Metrics(telemetry::Snapshot { families: vec![family] });
        let mut decoder = Decoder::<FromWorker>::new();
        decoder.push(&greeting());
        decoder.push(&encode(&message));
        assert_eq!(decoder.next_message(), Ok(Some(message)));
    }

    #[test]
    fn a_flood_of_the_smallest_frames_is_read_in_time_that_grows_with_its_length_alone() {
        let mut bytes = greeting();
        let frame = encode(&FromWorker::Drained { cut: 0 });
        while bytes.len() < MAX_FRAME_BYTES {
            bytes.extend(&frame);
        }
        let started = std::time::Instant::now();
        let mut decoder = Decoder::<FromWorker>::new();
        decoder.push(&bytes);
        let mut count = 0;
        while let Ok(Some(_)) = decoder.next_message() {
            count += 1;
        }
        assert!(count > 100_000, "{count}");
        assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
    }
}
