//! One lane of a namespace: how far its invalidations have been applied, and the marks that make old entries invalid.
//!
//! Each of the lane's buckets has a floor, the highest sequence number of an invalidation applied to a key in it (trap
//! T2). A read notes the floor *before* it is sent; the entry it brings may claim that floor, because the script that
//! invalidates removes the entry before it publishes. A hit counts only while the entry's stamp reaches the floor.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    coherence::receiver::{OnHead, OnLog, OnMessage, Position, Receiver},
    keys::KeyHash,
};

/// Floors per lane. Two keys in one bucket cost each other a look at Redis per invalidation, nothing else.
pub(crate) const BUCKETS: usize = 1024;

/// What an entry in memory remembers of the moment it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Every invalidation of its key up to this number is reflected in it.
    pub(crate) sequence: u64,
    /// Entries of an earlier generation of the lane are worthless.
    pub(crate) generation: u64,
}

impl Stamp {
    /// The stamp of a value whose version, a number of the same sequence, is known.
    pub(crate) fn with_version(self, version: u64) -> Self {
        Self { sequence: self.sequence.max(version), ..self }
    }
}

/// How far a lane had been applied at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    position: Option<Position>,
    generation: u64,
}

impl Mark {
    /// For entries in Redis. A lane of which nothing is known is in no epoch, so that nobody believes the entry.
    pub(crate) fn position(self) -> Position {
        self.position.unwrap_or(Position { epoch: 0, sequence: 0 })
    }

    /// For entries in memory.
    pub(crate) fn stamp(self) -> Stamp {
        Stamp { sequence: self.position().sequence, generation: self.generation }
    }
}

/// The state of one lane.
#[derive(Debug)]
pub(crate) struct Lane {
    receiver: Mutex<Receiver>,
    floors: Box<[AtomicU64]>,
    generation: AtomicU64,
    /// The epoch of the position, for readers that do not take the lock; 0 while unknown.
    epoch: AtomicU64,
    /// When the lane was last known to have missed nothing; 0 for never.
    confirmed_ms: AtomicU64,
    /// The highest number that the subscription brought.
    delivered: AtomicU64,
    /// The floors tell of every invalidation after this number.
    known_from: AtomicU64,
}

impl Lane {
    pub(crate) fn new() -> Self {
        Self {
            receiver: Mutex::default(),
            floors: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            confirmed_ms: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            known_from: AtomicU64::new(u64::MAX),
        }
    }

    /// To be taken before a read is sent.
    pub(crate) fn stamp(&self, hash: KeyHash) -> Stamp {
        // The generation first: should the lane be dropped in between, the stamp is already worthless.
        let generation = self.generation.load(Ordering::Acquire);
        Stamp { sequence: self.floor(hash).load(Ordering::Acquire), generation }
    }

    /// How far the lane has been applied. To be taken before a load begins.
    pub(crate) fn mark(&self) -> Mark {
        // The generation first, as for a stamp.
        let generation = self.generation.load(Ordering::Acquire);
        Mark { position: self.position(), generation }
    }

    /// Whether the floors tell of every invalidation after `position`.
    pub(crate) fn covers(&self, position: Position) -> bool {
        self.epoch() == Some(position.epoch) && position.sequence >= self.known_from.load(Ordering::Acquire)
    }

    /// Makes everything read so far worthless: something was invalidated that has no number yet.
    pub(crate) fn outdate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether no invalidation applied so far makes an entry with this stamp old.
    pub(crate) fn allows(&self, hash: KeyHash, stamp: Stamp) -> bool {
        stamp.sequence >= self.floor(hash).load(Ordering::Acquire)
            && stamp.generation == self.generation.load(Ordering::Acquire)
    }

    /// Raises the floor of a key; what was read before `sequence` is invalid from now on.
    pub(crate) fn raise(&self, hash: KeyHash, sequence: u64) {
        self.floor(hash).fetch_max(sequence, Ordering::AcqRel);
    }

    /// When the lane was last known to have missed nothing, in milliseconds of the process's clock; 0 for never.
    pub(crate) fn confirmed_ms(&self) -> u64 {
        self.confirmed_ms.load(Ordering::Relaxed)
    }

    /// Nothing was missed of what Redis had executed at `at_ms`.
    pub(crate) fn confirm(&self, at_ms: u64) {
        self.confirmed_ms.fetch_max(at_ms, Ordering::Relaxed);
    }

    /// The highest number that the subscription brought in this epoch.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The subscription brought this number.
    pub(crate) fn deliver(&self, sequence: u64) {
        self.delivered.fetch_max(sequence, Ordering::Relaxed);
    }

    /// The epoch the lane lives in, if it is known.
    pub(crate) fn epoch(&self) -> Option<u64> {
        match self.epoch.load(Ordering::Acquire) {
            0 => None,
            epoch => Some(epoch),
        }
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.receiver().position()
    }

    /// Takes a message. The floors of its keys have to be raised **before**, whatever the answer: the position must never
    /// cover an invalidation that is not applied, while raising a floor too early does no harm.
    pub(crate) fn message(&self, previous: u64, at: Position) -> OnMessage {
        let mut receiver = self.receiver();
        let known = receiver.position().is_some();
        let outcome = receiver.message(previous, at);
        if outcome == OnMessage::Lost && known {
            self.drop_memory(&receiver);
        }
        outcome
    }

    /// Takes the head of the lane, asked for when the position was `asked_at`.
    pub(crate) fn head(&self, asked_at: Option<Position>, head: Position) -> OnHead {
        let mut receiver = self.receiver();
        let outcome = receiver.head(asked_at, head);
        if outcome == OnHead::Broken {
            self.drop_memory(&receiver);
        }
        outcome
    }

    /// Takes the log up to `head`; its keys, too, have to be raised before.
    pub(crate) fn log(&self, head: Position, entries: &[(u64, u64)]) -> OnLog {
        let mut receiver = self.receiver();
        let outcome = receiver.log(head, entries);
        if outcome == OnLog::Broken {
            self.drop_memory(&receiver);
        }
        outcome
    }

    /// Forgets where the lane stands, and with that everything that was read of it, until its head is known.
    pub(crate) fn lose(&self) {
        let mut receiver = self.receiver();
        receiver.lose();
        self.drop_memory(&receiver);
    }

    /// Makes every entry and every read in flight of this lane worthless.
    fn drop_memory(&self, receiver: &Receiver) {
        self.known_from.store(u64::MAX, Ordering::Release);
        // Twice: a read that takes its stamp while the floors change gets a generation that is already over.
        self.generation.fetch_add(1, Ordering::AcqRel);
        for floor in &self.floors {
            // Another epoch's numbers may be lower.
            floor.store(0, Ordering::Release);
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.delivered.store(0, Ordering::Relaxed);
        let position = receiver.position();
        self.known_from.store(position.map_or(u64::MAX, |position| position.sequence), Ordering::Release);
        self.epoch.store(position.map_or(0, |position| position.epoch), Ordering::Release);
    }

    fn floor(&self, hash: KeyHash) -> &AtomicU64 {
        &self.floors[hash.bucket()]
    }

    fn receiver(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
