//! Whether a value that was read or loaded at some time may still be answered with.

use std::{sync::Arc, time::Duration};

use crate::{
    coherence::lane::Stamp,
    flight::Landed,
    keys::KeyHash,
    shared::{NamespaceState, Shared},
    tags::TagStamp,
};

/// What a value in memory or in flight remembers of the moment it was read.
#[derive(Debug, Clone)]
pub(crate) struct Validity {
    pub(crate) stamp: Stamp,
    /// None is `None`.
    pub(crate) tags: Option<Arc<[TagStamp]>>,
    pub(crate) trust: Trust,
}

/// How far a value may be believed while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Loaded under the protection of Redis's lease: good for `disconnected_ttl` after the last contact.
    Coordinated,
    /// Loaded while Redis was away: lives no longer than `disconnected_ttl` in any case.
    Local,
}

impl Validity {
    fn tags(&self) -> &[TagStamp] {
        self.tags.as_deref().unwrap_or_default()
    }
}

impl Shared {
    /// Whether no invalidation since has made the value of a key invalid, and Redis has not been silent for so long that one may
    /// have been missed.
    pub(crate) fn is_valid(&self, namespace: &NamespaceState, hash: KeyHash, validity: &Validity, now_ms: u64) -> bool {
        let lane = namespace.lane(hash.lane());
        let is_trusted = match validity.trust {
            Trust::Local => true,
            Trust::Coordinated => {
                let of_tags = validity.tags().iter().map(|tag| tag.confirmed_ms(&self.tags));
                let confirmed_ms = of_tags.fold(lane.confirmed_ms(), u64::min);
                confirmed_ms > 0 && now_ms.saturating_sub(confirmed_ms) <= self.disconnected_ttl_ms()
            }
        };
        is_trusted && lane.allows(hash, validity.stamp) && self.are_tags_valid(validity)
    }

    /// Whether none of a value's tags was invalidated since.
    pub(crate) fn are_tags_valid(&self, validity: &Validity) -> bool {
        validity.tags().iter().all(|tag| tag.is_valid(&self.tags))
    }

    /// Whether an old value may be answered with in place of a new one, for `window` after it was fresh.
    pub(crate) fn may_stand_in(
        &self,
        namespace: &NamespaceState,
        hash: KeyHash,
        old: &Landed,
        window: Duration,
    ) -> bool {
        let now_ms = self.clock.now_ms();
        old.times.may_stand_in(now_ms, window) && self.is_valid(namespace, hash, &old.validity, now_ms)
    }
}
