#![doc = include_str!("../README.md")]

mod child;
mod clients;
pub mod control;
mod error;
mod fleet;
pub mod frame;
mod handover;
mod lock;
mod log_writer;
mod metrics;
mod port_holder;
mod run;
mod schedule;
mod sockets;
mod spec;
mod stats;
pub mod status;
mod steering;
pub mod system;
pub mod worker_side;

pub use error::Error;
pub use fleet::Outcome;
pub use handover::Handover;
pub use lock::StateLock;
pub use run::{Hooks, OnReady, Respec, Resumed, Supervisor};
pub use schedule::Schedule;
pub use spec::{AuxiliaryProcess, ListenAddress, LogFiles, Program, Recycling, Spec};
