//! Points in monotonic time that outlive an `execve`: serialised as nanoseconds of `CLOCK_MONOTONIC`, which goes on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// For `#[serde(with = "moment")]` on an `Instant`.
pub(crate) fn serialize<S: Serializer>(moment: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    to_nanoseconds(*moment).serialize(serializer)
}

/// For `#[serde(with = "moment")]` on an `Instant`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
    i64::deserialize(deserializer).map(from_nanoseconds)
}

/// For `#[serde(with = "moment::option")]` on an `Option<Instant>`.
pub(crate) mod option {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(moment: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
        moment.map(to_nanoseconds).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Instant>, D::Error> {
        Ok(Option::<i64>::deserialize(deserializer)?.map(from_nanoseconds))
    }
}

/// For `#[serde(with = "moment::list")]` on a `VecDeque<Instant>`.
pub(crate) mod list {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(moments: &VecDeque<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(moments.iter().copied().map(to_nanoseconds))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VecDeque<Instant>, D::Error> {
        Ok(Vec::<i64>::deserialize(deserializer)?.into_iter().map(from_nanoseconds).collect())
    }
}

/// Microseconds of `CLOCK_MONOTONIC` now, as systemd wants them.
pub(crate) fn monotonic_microseconds() -> u64 {
    (clock() / 1_000).unsigned_abs()
}

fn to_nanoseconds(moment: Instant) -> i64 {
    let now = Instant::now();
    let ahead = moment.saturating_duration_since(now).as_nanos() as i64;
    let behind = now.saturating_duration_since(moment).as_nanos() as i64;
    clock() + ahead - behind
}

fn from_nanoseconds(nanoseconds: i64) -> Instant {
    let now = Instant::now();
    let difference = nanoseconds - clock();
    let distance = Duration::from_nanos(difference.unsigned_abs());
    if difference >= 0 { now + distance } else { now.checked_sub(distance).unwrap_or(now) }
}

/// Nanoseconds of the clock that `Instant` reads, too.
fn clock() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        #[serde(with = "crate::handover::moment")]
        one: Instant,
        #[serde(with = "crate::handover::moment::option")]
        other: Option<Instant>,
        #[serde(with = "crate::handover::moment::list")]
        several: VecDeque<Instant>,
    }

    #[test]
    fn moments_before_and_after_now_come_back_within_a_millisecond() {
        let now = Instant::now();
        let (before, after) = (now - Duration::from_millis(50), now + Duration::from_secs(100));
        let stored = Stored { one: before, other: Some(after), several: [before, after].into() };
        let read: Stored = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
        let close = |one: Instant, other: Instant| {
            one.saturating_duration_since(other).max(other.saturating_duration_since(one)) < Duration::from_millis(1)
        };
        assert!(close(read.one, before) && close(read.other.unwrap(), after));
        assert!(close(read.several[0], before) && close(read.several[1], after));
    }
}
