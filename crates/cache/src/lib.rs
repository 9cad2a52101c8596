#![doc = include_str!("../README.md")]

mod cache;
mod caches;
mod change;
mod clock;
mod coherence;
mod config;
mod envelope;
mod error;
mod flight;
mod freshness;
mod hit;
mod holder;
mod inspect;
mod keys;
mod l1;
mod l2;
mod load;
mod metrics;
mod shared;
mod tags;

pub use cache::Cache;
pub use caches::{CacheKey, Caches, Invalidation};
pub use change::Change;
pub use config::{Config, Namespace, Options};
pub use error::LoadError;
pub use hit::{Hit, Loaded, Source};
pub use inspect::{Inspection, Readable};
