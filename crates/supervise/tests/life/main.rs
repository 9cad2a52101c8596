//! Whole supervisors with real processes. The binary runs itself as the supervisor and as its workers, so it needs
//! nothing but itself; hence no test harness. Arguments choose tests by a part of their names.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

mod abort;
mod activation;
mod burdens;
mod cases;
mod changes;
mod harness;
mod logs;
mod roles;
mod upgrade;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("role-supervisor") => std::process::exit(roles::supervisor(&arguments[1..]).into()),
        Some("role-worker") => std::process::exit(roles::worker(&arguments[1])),
        Some("role-activated") => std::process::exit(activation::role()),
        Some("role-hang") => std::process::exit(abort::role(&arguments[1])),
        Some("role-process") => std::process::exit(roles::process()),
        _ => run_tests(&arguments),
    }
}

fn run_tests(arguments: &[String]) {
    let chosen: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let tests = cases::all()
        .into_iter()
        .chain(abort::all())
        .filter(|(name, _)| chosen.is_empty() || chosen.iter().any(|part| name.contains(*part)));
    if arguments.iter().any(|argument| argument == "--list") {
        tests.for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let mut failed = Vec::new();
    for (name, test) in tests {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(test));
        println!("test {name} ... {} ({:.1?})", if result.is_ok() { "ok" } else { "FAILED" }, started.elapsed());
        if result.is_err() {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        eprintln!("failed: {failed:?}");
        std::process::exit(101);
    }
}
