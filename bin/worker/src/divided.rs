//! What the workers of a host divide between them: each limit while Redis is away, and the memory for cached values.

use cache::Caches;
use rate_limit::{Limiter, Share};

/// This worker's parts, which follow the number of workers.
#[derive(Clone)]
pub(crate) struct Divided {
    pub(crate) worker_id: u32,
    pub(crate) limiter: Limiter,
    pub(crate) caches: Caches,
    /// Of all workers together.
    pub(crate) l1_budget_bytes: u64,
}

impl Divided {
    /// From now on there are so many workers.
    pub(crate) fn among(&self, workers: u32) {
        // One that is none of them is about to end, and keeps the part it has.
        if self.worker_id < workers {
            self.limiter.divide(Share { index: self.worker_id, workers });
        }
        self.caches.set_l1_bytes(part(self.l1_budget_bytes, workers));
        tracing::debug!(workers, "Worker divides limits and cache among another number");
    }
}

/// One worker's part.
pub(crate) fn part(of_all: u64, workers: u32) -> u64 {
    of_all / u64::from(workers.max(1))
}
