//! Which lane a key belongs to, and the names of the lane's keys in Redis.

use redis_store::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::coherence::{lane::BUCKETS, message};

/// Lanes per namespace. All releases that share a Redis must agree on it.
pub(crate) const LANES: usize = 16;

/// The hash of a key. The lane it gives is the same in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn of(key: &str) -> Self {
        Self(xxh3_64(key.as_bytes()))
    }

    pub(crate) fn lane(self) -> usize {
        (self.0 % LANES as u64) as usize
    }

    pub(crate) fn bucket(self) -> usize {
        (self.0 / LANES as u64 % BUCKETS as u64) as usize
    }
}

/// The names of one lane: `{prefix}:c:{namespace:lane}:…`, which share a slot on a cluster.
#[derive(Debug)]
pub(crate) struct LaneKeys {
    stem: String,
    /// Epoch and sequence numbers.
    pub(crate) meta: Bytes,
    /// The stream of invalidations.
    pub(crate) log: Bytes,
}

impl LaneKeys {
    pub(crate) fn new(prefix: &str, namespace: &str, lane: usize) -> Self {
        let stem = format!("{prefix}:c:{{{namespace}:{lane}}}:");
        Self { meta: format!("{stem}m").into(), log: format!("{stem}log").into(), stem }
    }

    /// Where the value of `key` lies.
    pub(crate) fn entry(&self, key: &str) -> Bytes {
        [&self.stem, "e:", key].concat().into()
    }

    /// Where the lease on `key` lies.
    pub(crate) fn guard(&self, key: &str) -> Bytes {
        [&self.stem, "g:", key].concat().into()
    }
}

/// The list of announced changes.
pub(crate) fn changes(prefix: &str) -> Bytes {
    format!("{prefix}:c:{{changes}}:announced").into()
}

/// The channel of a namespace, for this release's messages.
pub(crate) fn channel(prefix: &str, namespace: &str) -> String {
    format!("{prefix}:c:{namespace}:{}", message::FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lanes_are_what_other_processes_expect() {
        let keys = LaneKeys::new("bw", "product", 3);
        assert_eq!(keys.entry("lamp"), "bw:c:{product:3}:e:lamp");
        assert_eq!(keys.guard("lamp"), "bw:c:{product:3}:g:lamp");
        assert_eq!(keys.meta, "bw:c:{product:3}:m");
        assert_eq!(keys.log, "bw:c:{product:3}:log");
        assert_eq!(channel("bw", "product"), "bw:c:product:1");
        assert_eq!(KeyHash::of("lamp").lane(), LANE_OF_LAMP);
    }

    /// Computed once, with the first release.
    const LANE_OF_LAMP: usize = 13;
}
