//! Whole-system tests: real processes, sockets, signals, Redis and databases. One binary, one module per theme.

#![allow(clippy::unwrap_used, reason = "in a test an unexpected failure is a failed test")]

mod abuse;
mod admission;
mod cluster;
mod coherence;
mod first_run;
mod layering;
mod lifecycle;
mod outage;
