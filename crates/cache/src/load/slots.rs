//! How many loads of a namespace run at once: a cold cache must not become a storm on the database (trap T10).

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::LoadError;

/// Room for loads, and for some that wait.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Semaphore,
    waiting: AtomicUsize,
    most_waiting: usize,
}

impl Slots {
    pub(crate) fn new(most: usize, most_waiting: usize) -> Self {
        Self { free: Semaphore::new(most), waiting: AtomicUsize::new(0), most_waiting }
    }

    /// Waits for a turn, in order of arrival; fails at once when too many wait.
    pub(crate) async fn take(&self) -> Result<SemaphorePermit<'_>, LoadError> {
        if let Ok(slot) = self.free.try_acquire() {
            return Ok(slot);
        }
        let _waiting = Waiting::among(self).ok_or(LoadError::Overloaded)?;
        self.free.acquire().await.map_err(|_| LoadError::Abandoned)
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(slots: &'a Slots) -> Option<Self> {
        let waiting = Self(&slots.waiting);
        (slots.waiting.fetch_add(1, Ordering::Relaxed) < slots.most_waiting).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn so_many_run_so_many_wait_and_the_others_are_refused() {
        let slots = Slots::new(1, 1);
        let running = slots.take().now_or_never().unwrap().unwrap();
        let mut waiting = Box::pin(slots.take());
        assert!((&mut waiting).now_or_never().is_none());
        assert!(matches!(slots.take().now_or_never(), Some(Err(LoadError::Overloaded))));
        drop(running);
        let next = waiting.now_or_never().unwrap().unwrap();
        // Whoever gives up waiting makes room for another.
        let mut given_up = Box::pin(slots.take());
        assert!((&mut given_up).now_or_never().is_none());
        drop(given_up);
        assert!(slots.take().now_or_never().is_none());
        drop(next);
        assert!(slots.take().now_or_never().is_some_and(|slot| slot.is_ok()));
    }
}
