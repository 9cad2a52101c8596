//! A worker's own part of a limit, for when Redis is away.

use crate::{bounded::Slot, config::Share};

/// How much of `limit` this worker may admit to `slot`: an equal part, and one more for as many workers as there is a
/// remainder. Which ones is drawn for each identity (rendezvous hashing), so that the parts of all workers add up to
/// the limit exactly and a limit smaller than the number of workers does not always favour the same ones.
pub(crate) fn quota(limit: u64, slot: &Slot, share: Share) -> u64 {
    let workers = u64::from(share.workers);
    let remainder = limit % workers;
    let has_one_more = remainder > 0 && rank(slot, share) < remainder;
    limit / workers + u64::from(has_one_more)
}

/// How many workers stand before this one in the order drawn for `slot`.
fn rank(slot: &Slot, share: Share) -> u64 {
    let mine = (score(slot, share.index), share.index);
    (0..share.workers).filter(|&worker| (score(slot, worker), worker) > mine).count() as u64
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014) over the worker and the slot.
fn score(slot: &Slot, worker: u32) -> u64 {
    let salt = u64::from(worker) << 8 | u64::from(slot.policy);
    let mut mixed = slot.identity.low ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    proptest! {
        #[test]
        fn the_parts_of_all_workers_add_up_to_the_limit(
            limit in 0_u64..1_000_000,
            workers in 1_u32..130,
            high in any::<u64>(),
            low in any::<u64>(),
            policy in 0_u8..64,
        ) {
            let slot = Slot { identity: Identity { high, low }, policy };
            let parts: Vec<u64> = (0..workers).map(|index| quota(limit, &slot, Share { index, workers })).collect();
            prop_assert_eq!(parts.iter().sum::<u64>(), limit);
            prop_assert!(parts.iter().all(|part| part.abs_diff(limit / u64::from(workers)) <= 1));
        }
    }

    #[test]
    fn a_limit_of_one_falls_to_each_worker_about_equally_often() {
        let mut wins = [0; 8];
        for number in 0..8000_u64 {
            let slot =
                Slot { identity: Identity { high: 0, low: number.wrapping_mul(0x5851_f42d_4c95_7f2d) }, policy: 0 };
            for (index, wins) in (0..).zip(&mut wins) {
                *wins += quota(1, &slot, Share { index, workers: 8 });
            }
        }
        assert!(wins.iter().all(|wins| (850..1150).contains(wins)), "{wins:?}");
    }
}
