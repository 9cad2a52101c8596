//! What SIGABRT, the watchdog's first step, does to a process that hangs. The processes need no supervisor: this binary is each of them.

use std::backtrace::Backtrace;
use std::hint::{black_box, spin_loop};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use supervise::worker_side::backtrace_on_abort;

use crate::cases::{Case, named};
use crate::harness::signal;

/// The supervisor kills after two seconds; the rest is for a machine that has other things to do.
const LIMIT: Duration = Duration::from_millis(2_500);

pub(crate) fn all() -> Vec<Case> {
    vec![
        named(a_hanging_function_is_named_before_the_process_ends),
        named(the_main_thread_is_shown_whoever_gets_the_signal),
        named(a_process_whose_backtrace_cannot_be_made_ends_too),
    ]
}

/// Hangs in the way that `how` says.
pub(crate) fn role(how: &str) -> i32 {
    backtrace_on_abort().unwrap();
    match how {
        "in-a-handler" => a_handler_that_never_returns(),
        "while-another-thread-aborts" => {
            thread::spawn(|| {
                std::io::stdin().read_exact(&mut [0]).unwrap();
                raise(Signal::SIGABRT).unwrap();
                loop {
                    thread::park();
                }
            });
            a_handler_that_never_returns()
        }
        // The standard library makes one backtrace at a time, and the signal comes within one.
        _ => {
            println!("hangs");
            loop {
                black_box(Backtrace::force_capture().to_string());
            }
        }
    }
}

#[inline(never)]
fn a_handler_that_never_returns() -> ! {
    println!("hangs");
    loop {
        spin_loop();
    }
}

fn hanging(how: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("role-hang").arg(how).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    child
}

/// Waits for the end, which has to be by SIGABRT and in time; gives what was said meanwhile.
fn last_words(mut child: Child, since: Instant) -> String {
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    let status = child.wait().unwrap();
    let took = since.elapsed();
    println!("ended after {took:?}");
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{words}");
    assert!(took < LIMIT, "ended after {took:?}: {words}");
    words
}

fn a_hanging_function_is_named_before_the_process_ends() {
    let child = hanging("in-a-handler");
    let since = Instant::now();
    signal(child.id() as i32, Signal::SIGABRT);
    let words = last_words(child, since);
    assert!(words.contains("a_handler_that_never_returns"), "{words}");
}

fn the_main_thread_is_shown_whoever_gets_the_signal() {
    let mut child = hanging("while-another-thread-aborts");
    let since = Instant::now();
    child.stdin.take().unwrap().write_all(b"!").unwrap();
    let words = last_words(child, since);
    assert!(words.contains("a_handler_that_never_returns"), "{words}");
}

fn a_process_whose_backtrace_cannot_be_made_ends_too() {
    let child = hanging("within-a-backtrace");
    let since = Instant::now();
    signal(child.id() as i32, Signal::SIGABRT);
    last_words(child, since);
}
