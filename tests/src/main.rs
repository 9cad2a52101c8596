//! Whole-system tests: real processes, sockets, signals, Redis and databases. One binary, one module per theme.

#![allow(clippy::unwrap_used, reason = "in a test an unexpected failure is a failed test")]
#![allow(clippy::print_stdout, reason = "shown when a test fails, or with --nocapture")]

mod abuse;
mod admission;
mod cache_by_hand;
mod changes;
mod cluster;
mod coherence;
mod first_run;
mod layering;
mod lifecycle;
mod limits;
mod limits_by_hand;
mod metrics;
mod outage;
mod programs;
mod reload;
mod systemd;
mod traffic;
mod upgrade;
mod user;
