//! What the workers of a host divide between them: each limit while Redis is away, and the memory for cached values.

use cache::Caches;
use rate_limit::Limiter;

/// This worker's parts, which follow the number of workers.
#[derive(Clone)]
pub(crate) struct Divided {
    pub(crate) limiter: Limiter,
    pub(crate) caches: Caches,
    /// Of all workers together.
    pub(crate) l1_budget_bytes: u64,
}

impl Divided {
    /// From now on there are so many workers.
    pub(crate) fn among(&self, workers: u32) {
        self.limiter.divide_among(workers);
        self.caches.set_l1_bytes(part(self.l1_budget_bytes, workers));
        tracing::debug!(workers, "Worker divides limits and cache among another number");
    }
}

/// One worker's part.
pub(crate) fn part(of_all: u64, workers: u32) -> u64 {
    of_all / u64::from(workers.max(1))
}
