//! What workers divide between them: each limit while Redis is away, over all hosts, and the memory for cached values, over one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use cache::Caches;
use cluster::{Member, Membership, Place, place};
use rate_limit::{Limiter, Share};
use tokio::sync::watch;

/// This worker's parts, which follow the number of workers.
#[derive(Clone)]
pub(crate) struct Divided {
    own: Member,
    limiter: Limiter,
    caches: Caches,
    /// Of all workers together.
    l1_budget_bytes: u64,
    /// Of this host.
    workers: Rc<Cell<u32>>,
    members: watch::Receiver<Arc<[Member]>>,
    _membership: Rc<Membership>,
}

impl Divided {
    /// Divides among the workers of this host until others are heard of.
    pub(crate) fn new(
        own: Member,
        workers: u32,
        limiter: Limiter,
        caches: Caches,
        l1_budget_bytes: u64,
        membership: Membership,
    ) -> Self {
        let (workers, members) = (Rc::new(Cell::new(workers)), membership.members());
        Self { own, limiter, caches, l1_budget_bytes, workers, members, _membership: Rc::new(membership) }
    }

    /// From now on this host has so many workers.
    pub(crate) fn among(&self, workers: u32) {
        self.workers.set(workers);
        self.divide_limits();
        self.caches.set_l1_bytes(part(self.l1_budget_bytes, workers));
        tracing::debug!(workers, "Worker divides limits and cache among another number");
    }

    /// Follows what is heard of other hosts, for ever.
    pub(crate) async fn follow(mut self) -> anyhow::Result<()> {
        while self.members.changed().await.is_ok() {
            self.divide_limits();
        }
        Ok(())
    }

    fn divide_limits(&self) {
        // One that is none of its host's is about to end, and keeps the part it has.
        if self.own.worker < self.workers.get() {
            let Place { index, workers } = place(self.own, self.workers.get(), &self.members.borrow());
            self.limiter.divide(Share { index, workers });
        }
    }
}

/// One worker's part.
pub(crate) fn part(of_all: u64, workers: u32) -> u64 {
    of_all / u64::from(workers.max(1))
}
