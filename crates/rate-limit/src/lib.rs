#![doc = include_str!("../README.md")]

mod bounded;
mod config;
mod decision;
mod error;
mod flusher;
pub mod headers;
mod identity;
mod limiter;
mod local;
mod metrics;
mod paths;
mod policies;
mod queue;
mod script;
mod state;
mod window;

pub use config::{Config, Policy, Share};
pub use decision::{Decision, PolicyState, Source};
pub use error::Error;
pub use limiter::Limiter;
pub use policies::{Policies, PolicySet};

#[cfg(test)]
mod tests;
