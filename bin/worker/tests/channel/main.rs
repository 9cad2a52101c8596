//! The worker's executable under a supervisor that the test plays itself: what it says, and what it does when told.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod cases;
mod harness;
