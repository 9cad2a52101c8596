#![doc = include_str!("../README.md")]

mod body;
mod client_address;
mod config;
mod connection;
mod detach;
mod error;
mod floor;
mod head;
mod latency;
mod listener;
mod problem;
mod server;
mod state;
mod statistics;
mod stream;
mod task;

pub use client_address::{Networks, TrustedProxies};
#[doc(hidden)]
pub use config::Limits;
pub use config::{AccessLog, Config};
pub use detach::detach;
pub use error::Error;
pub use listener::{Adoption, Listener};
pub use problem::Problem;
pub use server::{DrainKind, Phase, Report, Server, client_address, set_body_deadline};
pub use statistics::{Snapshot, Statistics};
