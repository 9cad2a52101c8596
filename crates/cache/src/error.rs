//! Why a read brought nothing.

use std::{error::Error, sync::Arc};

/// Why a load failed. Everybody who waited for it gets the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The loader said so.
    #[error("the loader failed: {0}")]
    Failed(Arc<dyn Error + Send + Sync>),
    /// The loader failed in another worker a moment ago, which also logged why.
    #[error("the loader failed in another worker a moment ago")]
    FailedElsewhere,
    /// The loader took longer than [`Options::load_timeout`](crate::Options::load_timeout).
    #[error("the loader took too long")]
    TimedOut,
    /// So many loads are under way in this worker, and so many wait, that this one was not begun.
    #[error("too many loads are under way")]
    Overloaded,
    /// The loader panicked.
    #[error("the loader panicked")]
    Panicked,
    /// The load was cut off because the runtime it ran on is ending.
    #[error("the load was abandoned")]
    Abandoned,
}
