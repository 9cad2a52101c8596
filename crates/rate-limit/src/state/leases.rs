//! What Redis granted this worker ahead, so that busy identities need not be asked about one by one.
//!
//! A grant is counted in Redis when it is given, so that the sum over all workers never exceeds the limit; what is not
//! spent within [`HOLD`] is given back. A worker that dies takes what it holds with it, until the window ends.

use std::{collections::VecDeque, time::Duration};

use smallvec::SmallVec;

use crate::{
    request::{Parts, Request},
    state::bounded::Bounded,
};

/// How long a grant is kept, and how much demand it is to cover.
pub(crate) const HOLD: Duration = Duration::from_millis(500);
const HOLD_US: u64 = HOLD.as_micros() as u64;

/// The rate of an identity is measured over at least this long, so that a burst is no rate.
const MEASURED_US: u64 = 20_000;

/// The largest grant.
const MAX_WANTED: u32 = 1024;

/// Busy identities that are known: 2 MB when full. Forgetting one costs calls, and what it holds until the window ends.
const KNOWN: usize = 14_336;

/// Each worker may hold this part of what is left, over the number of workers: so never more than a quarter is held back.
pub(crate) const SPREAD: u32 = 4;

/// Clocks may run apart by half a thousandth; a grant ends so much, and a millisecond, before its window does.
const DRIFT: u64 = 2_000;
const GUARD_US: u64 = 1_000;

/// What is held for one kind of request, and how busy it is. Times are monotonic.
struct Pool {
    parts: Parts,
    cost: u32,
    requests: u32,
    spent_before_us: u64,
    granted_us: u64,
    counted_us: u64,
    /// Of each part: units left beyond what is held, and when more are to be had.
    left: SmallVec<[(u64, u64); 2]>,
    measured_since_us: u64,
    /// Admitted since then.
    admitted: u32,
    per_second: u32,
}

/// A grant as Redis gave it.
pub(crate) struct Grant {
    pub(crate) requests: u32,
    /// When the call was sent; Redis looked at its clock after this.
    pub(crate) sent_us: u64,
    /// How long after that it may be spent, if the window ends before [`HOLD`] does.
    pub(crate) window_us: u64,
    pub(crate) counted_us: u64,
    pub(crate) left: SmallVec<[(u64, u64); 2]>,
}

/// What was granted and not spent.
pub(crate) struct Unspent {
    pub(crate) parts: Parts,
    pub(crate) cost: u32,
    pub(crate) requests: u32,
    pub(crate) counted_us: u64,
}

/// A request that was admitted from a grant.
pub(crate) struct Spent<'a> {
    /// Requests that are still held.
    pub(crate) held: u32,
    pub(crate) counted_us: u64,
    pub(crate) left: &'a [(u64, u64)],
}

/// All grants of this worker.
pub(crate) struct Leases {
    pools: Bounded<u64, Pool>,
    /// Grants by the time they were given, the oldest first.
    granted: VecDeque<(u64, u64)>,
}

impl Leases {
    pub(crate) fn new() -> Self {
        Self { pools: Bounded::new(KNOWN), granted: VecDeque::new() }
    }

    /// Admits a request from what is held.
    pub(crate) fn spend(&mut self, request: &Request, now_us: u64) -> Option<Spent<'_>> {
        let pool = self.pools.get_mut(&request.fingerprint)?;
        if pool.requests == 0 || now_us >= pool.spent_before_us {
            return None;
        }
        pool.requests -= 1;
        pool.admitted += 1;
        Some(Spent { held: pool.requests, counted_us: pool.counted_us, left: &pool.left })
    }

    /// How many requests to ask for beyond the ones that wait: what half a second needs, if that is worth asking.
    pub(crate) fn wanted(&mut self, request: &Request, waiting: u32, now_us: u64) -> u32 {
        let Some(pool) = self.pools.get_mut(&request.fingerprint) else {
            self.pools.insert(request.fingerprint, Pool::new(request, waiting, now_us));
            return 0;
        };
        pool.admitted = pool.admitted.saturating_add(waiting);
        pool.measure(now_us);
        let needed = u64::from(pool.per_second) * HOLD_US / 1_000_000;
        if needed >= 2 { (needed as u32).min(MAX_WANTED) } else { 0 }
    }

    /// Takes a grant, and returns what of an earlier one can no longer be spent.
    pub(crate) fn grant(&mut self, request: &Request, grant: Grant) -> Option<Unspent> {
        let pool = self.pools.get_mut(&request.fingerprint)?;
        let window_us = grant.window_us.saturating_sub(grant.window_us / DRIFT + GUARD_US);
        let spent_before_us = grant.sent_us + window_us.min(HOLD_US);
        let is_over = grant.sent_us >= pool.spent_before_us;
        let unspent = if is_over { pool.take_unspent() } else { None };
        if pool.requests > 0 {
            // Two grants were under way; the shorter of their lives counts for both.
            pool.requests += grant.requests;
            pool.spent_before_us = pool.spent_before_us.min(spent_before_us);
        } else {
            (pool.requests, pool.spent_before_us) = (grant.requests, spent_before_us);
        }
        (pool.granted_us, pool.counted_us, pool.left) = (grant.sent_us, grant.counted_us, grant.left);
        self.granted.push_back((grant.sent_us, request.fingerprint));
        unspent
    }

    /// Whether anything may have to be given back later.
    pub(crate) fn is_holding(&self) -> bool {
        !self.granted.is_empty()
    }

    /// Takes what was not spent in time.
    pub(crate) fn overdue(&mut self, now_us: u64) -> Vec<Unspent> {
        let mut unspent = Vec::new();
        while let Some(&(granted_us, fingerprint)) = self.granted.front() {
            if now_us < granted_us + HOLD_US {
                break;
            }
            self.granted.pop_front();
            let pool = self.pools.get_mut(&fingerprint).filter(|pool| pool.granted_us == granted_us);
            unspent.extend(pool.and_then(Pool::take_unspent));
        }
        unspent
    }

    /// Takes everything that is held for requests of which `concerns` is true; also how it was used.
    pub(crate) fn take(&mut self, concerns: impl Fn(&Parts) -> bool) -> Vec<Unspent> {
        let pools = self.pools.values_mut().filter(|pool| concerns(&pool.parts));
        pools.filter_map(Pool::take_unspent).collect()
    }
}

impl Pool {
    fn new(request: &Request, waiting: u32, now_us: u64) -> Self {
        Self {
            parts: request.parts.clone(),
            cost: request.cost,
            requests: 0,
            spent_before_us: 0,
            granted_us: 0,
            counted_us: 0,
            left: SmallVec::new(),
            measured_since_us: now_us,
            admitted: waiting,
            per_second: 0,
        }
    }

    fn measure(&mut self, now_us: u64) {
        let elapsed_us = now_us.saturating_sub(self.measured_since_us);
        if elapsed_us >= MEASURED_US {
            let per_second = u64::from(self.admitted) * 1_000_000 / elapsed_us;
            self.per_second = u32::try_from(per_second).unwrap_or(u32::MAX);
            (self.measured_since_us, self.admitted) = (now_us, 0);
        }
    }

    fn take_unspent(&mut self) -> Option<Unspent> {
        let requests = std::mem::take(&mut self.requests);
        let (parts, cost, counted_us) = (self.parts.clone(), self.cost, self.counted_us);
        (requests > 0).then_some(Unspent { parts, cost, requests, counted_us })
    }
}
