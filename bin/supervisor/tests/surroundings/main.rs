//! What surrounds the supervisor: the unit for systemd, the doctor, health checks, completions, manual pages, the container image.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod container;
mod doctor;
mod healthcheck;
mod pages;
mod service;
mod shell;
