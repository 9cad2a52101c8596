//! The edge against clients that are slow, greedy, malformed or many, over real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod adoption;
mod caps;
mod deadlines;
mod drain;
mod harness;
mod requests;
