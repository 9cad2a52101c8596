#![doc = include_str!("../README.md")]

mod bounded;
mod clerk;
mod clock;
mod config;
mod control;
mod decision;
mod denials;
mod error;
mod flusher;
pub mod headers;
mod held;
mod identity;
mod leases;
mod limiter;
mod local;
mod metrics;
mod paths;
mod policies;
mod queue;
mod request;
mod rule;
mod script;
mod settlement;
mod state;
mod subject;
mod window;

pub use config::{Algorithm, Config, Count, Key, KeyPart, Lease, OnOutage, Policy, Share, Tier};
pub use decision::{Decision, PolicyState, Source, Verdict};
pub use error::Error;
pub use limiter::Limiter;
pub use policies::{Policies, PolicySet};
pub use request::Request;
pub use subject::Subject;

#[cfg(test)]
mod tests;
