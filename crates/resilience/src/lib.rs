#![doc = include_str!("../README.md")]

mod backoff;
mod breaker;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerConfig, Permit, State};
