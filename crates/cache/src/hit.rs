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
    /// How long this worker will go on answering with it, unless it is invalidated.
    pub ttl: Duration,
}
