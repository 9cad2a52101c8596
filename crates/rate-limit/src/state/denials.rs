//! The denial cache: what Redis has denied and must deny again.

use crate::state::bounded::{Bounded, Slot};

/// Denials that are remembered: as many as fit the places of two tables, 3.5 MB when full.
const REMEMBERED: usize = 57_344;

/// A denial is believed for so long, in microseconds; then Redis is asked again. Whoever is let in early, by a reset or a
/// refund, waits no longer than this where the news does not arrive.
const BELIEVED_US: u64 = 1_000_000;

/// Why requests need not be asked about. Times are monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Redis is asked again from then on.
    believed_until_us: u64,
    /// When the request that was denied could pass; `u64::MAX`: never.
    pub(crate) passes_at_us: u64,
    /// What it would have taken; whoever takes less may pass sooner.
    units: u64,
    /// Whether somebody has been denied for it: it is known when the last unit is gone.
    is_met: bool,
}

/// Denials by counter.
pub(crate) struct Denials(Bounded<Slot, Denial>);

impl Denials {
    pub(crate) fn new() -> Self {
        Self(Bounded::new(REMEMBERED))
    }

    /// When a request of so many units passes that is certainly denied, and whether it is the first one.
    pub(crate) fn meet(&mut self, slot: &Slot, units: u64, now_us: u64) -> Option<(u64, bool)> {
        let denial =
            self.0.get_mut(slot).filter(|denial| now_us < denial.believed_until_us && units >= denial.units)?;
        let is_first = !std::mem::replace(&mut denial.is_met, true);
        Some((denial.passes_at_us, is_first))
    }

    /// Remembers that Redis, asked at `sent_us`, has not got so many units for the next `wait_us`, or ever, and whether it has denied
    /// them to somebody. True when that is the first one until then.
    ///
    /// Redis looked at its clock after `sent_us`, so it would not admit before that much later; until then only what is
    /// told to all workers can make room.
    pub(crate) fn remember(
        &mut self,
        slot: Slot,
        units: u64,
        sent_us: u64,
        wait_us: Option<u64>,
        is_denied: bool,
    ) -> bool {
        let was_met = self.0.get(&slot).is_some_and(|known| known.is_met && known.passes_at_us > sent_us);
        let passes_at_us = wait_us.map_or(u64::MAX, |wait| sent_us + wait);
        let believed_until_us = passes_at_us.min(sent_us + BELIEVED_US);
        self.0.insert(slot, Denial { believed_until_us, passes_at_us, units, is_met: was_met || is_denied });
        is_denied && !was_met
    }

    pub(crate) fn forget(&mut self, slot: &Slot) {
        self.0.remove(slot);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    const SLOT: Slot = Slot { identity: Identity { high: 1, low: 2 }, policy: 3 };

    fn denies(denials: &mut Denials, units: u64, now_us: u64) -> bool {
        denials.meet(&SLOT, units, now_us).is_some()
    }

    #[test]
    fn a_denial_is_believed_for_a_second_and_never_beyond_its_end() {
        let mut denials = Denials::new();
        denials.remember(SLOT, 1, 1_000, Some(500), true);
        assert!(denies(&mut denials, 1, 1_499));
        assert!(!denies(&mut denials, 1, 1_500));
        denials.remember(SLOT, 1, 1_000, Some(5_000_000), true);
        assert!(denies(&mut denials, 1, 1_000_999));
        assert!(!denies(&mut denials, 1, 1_001_000));
        denials.remember(SLOT, 1, 0, None, true);
        assert_eq!(denials.meet(&SLOT, 1, 999_999), Some((u64::MAX, false)));
        assert!(!denies(&mut denials, 1, 1_000_000));
    }

    #[test]
    fn whoever_takes_less_than_was_denied_is_not_denied() {
        let mut denials = Denials::new();
        denials.remember(SLOT, 5, 0, Some(1_000), true);
        assert!(denies(&mut denials, 5, 0));
        assert!(!denies(&mut denials, 4, 0));
        denials.forget(&SLOT);
        assert!(!denies(&mut denials, 5, 0));
    }

    #[test]
    fn a_denial_is_the_first_once_until_it_ends() {
        let mut denials = Denials::new();
        assert!(denials.remember(SLOT, 1, 0, Some(5_000_000), true));
        assert!(!denials.remember(SLOT, 1, 1_000_000, Some(4_000_000), true));
        assert!(denials.remember(SLOT, 1, 5_000_000, Some(5_000_000), true));
        // The last unit went to somebody who passed; the next one is the first who is denied.
        assert!(!denials.remember(SLOT, 1, 10_000_000, Some(5_000_000), false));
        assert_eq!(denials.meet(&SLOT, 1, 10_000_000), Some((15_000_000, true)));
        assert_eq!(denials.meet(&SLOT, 1, 10_000_001), Some((15_000_000, false)));
        assert!(!denials.remember(SLOT, 1, 11_000_000, Some(4_000_000), true));
    }
}
