//! Units at the same time: what this worker holds of them.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;

use crate::{flusher::Shared, request::Part, state::bounded::Slot};

/// A unit in Redis is named by the worker that holds it and a number of its own.
pub(crate) type Sequence = u64;

/// What one decision holds; given back when it is dropped.
pub(crate) struct Held {
    pub(crate) shared: Arc<Shared>,
    pub(crate) units: Units,
}

/// The units of one request, by part: the first number and how many.
pub(crate) type Units = SmallVec<[(Part, Sequence, u32); 1]>;

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.give_back(&self.units);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Held").field(&self.units).finish()
    }
}

/// Everything that this worker holds.
#[derive(Default)]
pub(crate) struct Holdings {
    by_slot: HashMap<Slot, (Part, Vec<Sequence>)>,
    next: Sequence,
}

impl Holdings {
    /// Numbers for so many units.
    pub(crate) fn number(&mut self, units: u64) -> Sequence {
        let first = self.next;
        self.next += units;
        first
    }

    pub(crate) fn add(&mut self, slot: Slot, part: Part, first: Sequence, units: u32) {
        let (_, sequences) = self.by_slot.entry(slot).or_insert_with(|| (part, Vec::new()));
        sequences.extend(first..first + u64::from(units));
    }

    pub(crate) fn remove(&mut self, slot: &Slot, first: Sequence, units: u32) {
        if let Some((_, sequences)) = self.by_slot.get_mut(slot) {
            sequences.retain(|sequence| !(first..first + u64::from(units)).contains(sequence));
            if sequences.is_empty() {
                self.by_slot.remove(slot);
            }
        }
    }

    pub(crate) fn count(&self, slot: &Slot) -> u64 {
        self.by_slot.get(slot).map_or(0, |(_, sequences)| sequences.len() as u64)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// All of it, to be held on to.
    pub(crate) fn all(&self) -> Vec<(Part, Vec<Sequence>)> {
        self.by_slot.values().cloned().collect()
    }
}
