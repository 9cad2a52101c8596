#![doc = include_str!("../README.md")]

mod clerk;
mod config;
mod control;
mod decision;
mod flusher;
pub mod headers;
mod identity;
mod limiter;
mod login;
mod metrics;
mod policies;
mod request;
mod rule;
mod script;
mod state;
mod subject;
mod window;

pub use config::{Algorithm, Config, Count, Error, Key, KeyPart, Lease, OnOutage, Policy, Share, Tier};
pub use decision::{Decision, PolicyState, Source, Verdict};
pub use limiter::Limiter;
pub use login::{Attempt, LoginConfig, LoginGuard, LoginVerdict};
pub use policies::{Policies, PolicySet};
pub use request::Request;
pub use subject::Subject;

#[cfg(test)]
mod tests;
