//! What a read brings.

use std::{sync::Arc, time::Duration};

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This worker's memory.
    L1,
    /// Redis.
    L2,
    /// The loader.
    Loader,
}

/// What a loader brings: a value, or that there is none, and how the entry is to be kept. `Some(value)` and `None` are enough
/// where nothing is to be said.
#[derive(Debug, Clone)]
pub struct Loaded<V> {
    /// The value, or `None` when there is no such row.
    pub value: Option<V>,
    /// Names by which the entry can be invalidated together with others, through [`Caches::tag`](crate::Caches::tag): at most
    /// 16 of at most 200 bytes. A value with others is answered and not stored.
    pub tags: Vec<String>,
    /// How long the entry lives, in place of the read's option, ± 10 %.
    pub ttl: Option<Duration>,
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        Self { value, tags: Vec::new(), ttl: None }
    }
}

/// The answer to a read.
#[derive(Debug)]
pub struct Hit<V> {
    /// The value, or `None` when there is known to be none.
    pub value: Option<Arc<V>>,
    /// Where it came from.
    pub source: Source,
    /// The caller waited for a load that another caller had started.
    pub collapsed: bool,
    /// It was put into Redis, or came from there. Always false while Redis is away.
    pub shared: bool,
    /// Its time is over, and a newer one could not be had in time or not at all.
    pub stale: bool,
    /// How long this worker will go on answering with it, unless it is invalidated.
    pub ttl: Duration,
}
