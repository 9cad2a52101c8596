//! Loads under way in this process: one per key, owned by its task, with callers only waiting (trap T14).
//!
//! An invalidation detaches a load: its callers still get its value, later callers start a new one, and it may no longer
//! put anything into L1. A failure stays for a moment and answers for those that come after it (trap T15).

use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, watch};

use crate::{
    coherence::validity::Validity, error::LoadError, freshness::Times, hit::Source, keys::KeyHash, l1::EntryKey,
};

/// A value without its type; the namespace knows it. `None`: the row is known to be absent.
pub(crate) type Untyped = Option<Arc<dyn Any + Send + Sync>>;

/// What a load ended with.
pub(crate) type Outcome = Result<Landed, LoadError>;

/// A value that a load brought, or that stands in for one.
#[derive(Debug, Clone)]
pub(crate) struct Landed {
    pub(crate) value: Untyped,
    pub(crate) source: Source,
    pub(crate) times: Times,
    /// Its number in Redis; 0 when Redis knows nothing of it.
    pub(crate) version: u64,
    pub(crate) validity: Validity,
}

/// How far a load is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// What stands in while there is nothing newer.
    pub(crate) old: Option<Landed>,
    pub(crate) outcome: Option<Outcome>,
}

/// One load.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) key: EntryKey,
    pub(crate) hash: KeyHash,
    /// The fencing token once the lease is granted; 0 before.
    token: AtomicU64,
    detached: AtomicBool,
    /// A load elsewhere has ended, or the lease that is waited for is void.
    pub(crate) wake: Notify,
    progress: watch::Sender<Progress>,
    /// Until when a failure answers for later callers; 0 while flying.
    held_until_ms: AtomicU64,
}

impl Flight {
    /// From now on the load sees what was invalidated before `token`.
    pub(crate) fn granted(&self, token: u64) {
        self.token.store(token, Ordering::Release);
    }

    /// Whether the key was invalidated since the load began.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    /// Whether everybody who waits has been answered.
    pub(crate) fn has_landed(&self) -> bool {
        self.progress.borrow().outcome.is_some()
    }

    /// Those who wait may have to make do with this one.
    pub(crate) fn offer(&self, old: Landed) {
        self.progress.send_modify(|progress| progress.old = Some(old));
    }

    /// What was offered, if anything.
    pub(crate) fn old(&self) -> Option<Landed> {
        self.progress.borrow().old.clone()
    }

    fn detach(&self) {
        self.detached.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// A caller's part in a load.
pub(crate) enum Joined {
    /// Nobody loads the key: the caller has to start the task that does.
    Started(Arc<Flight>, watch::Receiver<Progress>),
    /// Somebody does.
    Waiting(watch::Receiver<Progress>),
    /// It has just failed, and this stands in.
    Failed(LoadError, Option<Landed>),
}

/// All loads of the process.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flying: Mutex<HashMap<EntryKey, Arc<Flight>>>,
}

impl Flights {
    /// Joins the load of `key`, or starts one unless `recheck` finds that one has just ended. A failure for which something stood
    /// in answers only as long as that is so.
    pub(crate) fn join<T>(
        &self,
        key: EntryKey,
        hash: KeyHash,
        now_ms: u64,
        stands: impl FnOnce(&Landed) -> bool,
        recheck: impl FnOnce() -> Option<T>,
    ) -> Result<Joined, T> {
        let mut flying = self.flying();
        if let Some(flight) = flying.get(&key) {
            let progress = flight.progress.borrow();
            match &progress.outcome {
                Some(Err(error))
                    if now_ms < flight.held_until_ms.load(Ordering::Acquire)
                        && progress.old.as_ref().is_none_or(stands) =>
                {
                    return Ok(Joined::Failed(error.clone(), progress.old.clone()));
                }
                Some(_) => {}
                None => return Ok(Joined::Waiting(flight.progress.subscribe())),
            }
        }
        if let Some(found) = recheck() {
            return Err(found);
        }
        let (progress, receiver) = watch::channel(Progress::default());
        let flight = Arc::new(Flight {
            key: key.clone(),
            hash,
            token: AtomicU64::new(0),
            detached: AtomicBool::new(false),
            wake: Notify::new(),
            progress,
            held_until_ms: AtomicU64::new(0),
        });
        flying.insert(key, Arc::clone(&flight));
        Ok(Joined::Started(flight, receiver))
    }

    /// Ends a load. `store` puts the value into L1 and runs under the lock, so that it cannot follow an invalidation
    /// that has just detached the load; it does not run for a detached one.
    pub(crate) fn land(&self, flight: &Arc<Flight>, outcome: Outcome, held_until_ms: u64, store: impl FnOnce()) {
        let mut flying = self.flying();
        let is_current = flying.get(&flight.key).is_some_and(|current| Arc::ptr_eq(current, flight));
        if is_current && outcome.is_ok() {
            store();
            flying.remove(&flight.key);
        }
        flight.held_until_ms.store(held_until_ms, Ordering::Release);
        flight.progress.send_modify(|progress| progress.outcome = Some(outcome));
    }

    /// Detaches the load of `key` if it may have read what an invalidation with this number removed; `u64::MAX` for one
    /// whose number is not known yet.
    pub(crate) fn detach(&self, key: &EntryKey, sequence: u64) {
        let mut flying = self.flying();
        let is_older = |flight: &Arc<Flight>| flight.token.load(Ordering::Acquire) < sequence;
        if flying.get(key).is_some_and(is_older)
            && let Some(flight) = flying.remove(key)
        {
            flight.detach();
        }
    }

    /// Detaches all loads of a lane.
    pub(crate) fn detach_lane(&self, namespace: u32, lane: usize) {
        self.flying().retain(|key, flight| {
            let stays = key.namespace != namespace || flight.hash.lane() != lane;
            if !stays {
                flight.detach();
            }
            stays
        });
    }

    /// A load of `key` has ended in another process.
    pub(crate) fn wake(&self, key: &EntryKey) {
        if let Some(flight) = self.flying().get(key) {
            flight.wake.notify_one();
        }
    }

    /// Forgets failures whose time is over.
    pub(crate) fn sweep(&self, now_ms: u64) {
        self.flying().retain(|_, flight| {
            let held_until = flight.held_until_ms.load(Ordering::Acquire);
            held_until == 0 || now_ms < held_until
        });
    }

    fn flying(&self) -> MutexGuard<'_, HashMap<EntryKey, Arc<Flight>>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
