//! Tags: names that entries of any namespace carry, so that one invalidation outdates all that carry it (trap T7).
//!
//! A tag is a key of a namespace of its own, which holds no entries: its invalidations are numbered, logged, published and
//! caught up with like any other, in lanes with floors. An entry notes how far its tags' lanes had been applied when its load
//! **began**; it is valid as long as no tag of it was invalidated after that. So there is no list of what carries a tag,
//! nothing in Redis for a tag that nobody invalidates, and nothing that could be evicted; invalidating costs the same
//! however many entries carry the tag.

use std::sync::Arc;

use crate::{
    coherence::lane::{Mark, Stamp},
    coherence::pending::Pending,
    coherence::receiver::Position,
    keys::{KeyHash, LANES},
    l1::EntryKey,
    shared::NamespaceState,
};

/// The namespace's name, and the place that it has from the start.
pub(crate) const NAMESPACE: &str = "tags";
pub(crate) const NAMESPACE_ID: u32 = 0;

/// Tags of one entry.
pub(crate) const MOST_TAGS: usize = 16;
/// Bytes of one tag.
pub(crate) const LONGEST_TAG: usize = 200;

/// A tag of an entry in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag<'a> {
    pub(crate) name: &'a str,
    /// Every invalidation of the tag up to here is reflected in the entry.
    pub(crate) position: Position,
}

/// A tag of an entry in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TagStamp {
    hash: KeyHash,
    stamp: Stamp,
}

/// How far each lane of the tags had been applied at one moment.
#[derive(Debug)]
pub(crate) struct Marks(Box<[Mark]>);

/// Why an entry cannot carry its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("an entry has at most {MOST_TAGS} tags")]
    TooMany,
    #[error("a tag has 1 to {LONGEST_TAG} bytes")]
    Length,
}

/// Whether `tags` can be stored.
pub(crate) fn check(tags: &[String]) -> Result<(), Unusable> {
    if tags.len() > MOST_TAGS {
        return Err(Unusable::TooMany);
    }
    let has_length = |tag: &String| (1..=LONGEST_TAG).contains(&tag.len());
    if tags.iter().all(has_length) { Ok(()) } else { Err(Unusable::Length) }
}

impl Marks {
    /// To be taken before a load or a read begins.
    pub(crate) fn of(namespace: &NamespaceState) -> Self {
        Self((0..LANES).map(|lane| namespace.lane(lane).mark()).collect())
    }

    /// What an entry in Redis says of a tag.
    pub(crate) fn tag<'a>(&self, name: &'a str) -> Tag<'a> {
        Tag { name, position: self.0[KeyHash::of(name).lane()].position() }
    }

    /// What an entry in memory notes of the tags of a value loaded since.
    pub(crate) fn stamps(&self, names: &[String]) -> Option<Arc<[TagStamp]>> {
        let stamp = |name: &String| {
            let hash = KeyHash::of(name);
            TagStamp { hash, stamp: self.0[hash.lane()].stamp() }
        };
        collect(names.iter().map(stamp))
    }

    /// What an entry in memory notes of a tag of an entry read from Redis since.
    fn stamp_of_read(&self, tag: &Tag<'_>) -> TagStamp {
        let hash = KeyHash::of(tag.name);
        let generation = self.0[hash.lane()].stamp().generation;
        TagStamp { hash, stamp: Stamp { sequence: tag.position.sequence, generation } }
    }

    /// The stamps of an entry's tags, or `None` when the entry is older than an invalidation of one of them, or when that
    /// is not known.
    pub(crate) fn judge(
        &self,
        namespace: &NamespaceState,
        pending: &Pending,
        tags: &[Tag<'_>],
    ) -> Option<Option<Arc<[TagStamp]>>> {
        let is_valid = |tag: &Tag<'_>| {
            let stamp = self.stamp_of_read(tag);
            namespace.lane(stamp.hash.lane()).covers(tag.position)
                && stamp.is_valid(namespace)
                && !pending.contains(&EntryKey::new(NAMESPACE_ID, tag.name), stamp.hash)
        };
        tags.iter().all(is_valid).then(|| collect(tags.iter().map(|tag| self.stamp_of_read(tag))))
    }
}

impl TagStamp {
    /// Whether the tag was not invalidated since.
    pub(crate) fn is_valid(&self, namespace: &NamespaceState) -> bool {
        namespace.lane(self.hash.lane()).allows(self.hash, self.stamp)
    }

    /// When the tag's lane was last known to have missed nothing.
    pub(crate) fn confirmed_ms(&self, namespace: &NamespaceState) -> u64 {
        namespace.lane(self.hash.lane()).confirmed_ms()
    }
}

/// No tags cost nothing.
fn collect(stamps: impl ExactSizeIterator<Item = TagStamp>) -> Option<Arc<[TagStamp]>> {
    (stamps.len() > 0).then(|| stamps.collect())
}
