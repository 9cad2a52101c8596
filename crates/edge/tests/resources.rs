//! What floods cost in memory and descriptors. One test in a process of its own: both are the process's.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]
#![allow(clippy::print_stdout, reason = "the figures are of interest when they are within the limit, too")]
#![allow(dead_code, reason = "the harness serves another test, too")]

#[path = "edge/harness.rs"]
mod harness;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use edge::DrainKind;
use test_support::eventually;

use crate::harness::{Client, PATIENCE, TestServer, patient};

const CONNECTIONS: usize = 20;
const MOST_PER_CONNECTION: usize = 3 << 20;

#[test]
fn floods_pin_little_memory_and_the_lack_of_descriptors_passes() {
    // First, because freed memory that a later flood reuses would not count.
    pipelined_requests_behind_a_pending_one();
    pipelined_requests_whose_answers_nobody_reads();
    no_descriptors_left();
}

fn pipelined_requests_behind_a_pending_one() {
    // The shortest request there is pins the most per byte.
    let shortest = "GET / HTTP/1.0\r\nconnection:keep-alive\r\n\r\n";
    let flood = format!("GET /never HTTP/1.1\r\nhost: t\r\n\r\n{}", shortest.repeat((124 << 10) / shortest.len()));
    pinned("behind a pending request", &flood);
    let body = "POST /never HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    pinned("behind a body nobody reads", &format!("{body}{}", shortest.repeat((124 << 10) / shortest.len())));
}

fn pipelined_requests_whose_answers_nobody_reads() {
    pinned("with unread answers", &"GET /large HTTP/1.1\r\nhost: t\r\n\r\n".repeat(4_000));
}

/// Sends `flood` on many connections and measures what each makes the process keep.
fn pinned(what: &str, flood: &str) {
    let server = TestServer::start(patient());
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    eventually(PATIENCE, || server.metric("bellwether_http_connections") == CONNECTIONS as f64);
    let before = resident();
    for client in &mut clients {
        client.stream.set_nonblocking(true).unwrap();
        // The kernel takes what the server does not.
        client.try_send(flood.as_bytes());
    }
    eventually(PATIENCE, || server.metric("http_server_active_requests") == CONNECTIONS as f64);
    // Whatever still grows does so within this time.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let each = resident().saturating_sub(before) / CONNECTIONS;
    println!("{what}: {each} bytes per connection");
    assert!(each <= MOST_PER_CONNECTION, "{what}: {each} bytes per connection");
    assert!(server.connect().works());
    clients.into_iter().for_each(Client::hang_up);
    server.drain(DrainKind::Stop);
    server.report();
}

fn no_descriptors_left() {
    let server = TestServer::start(patient());
    let mut open = server.connect();
    assert!(open.works());
    let stat = File::open("/proc/self/stat").unwrap();
    limit_descriptors(64);
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    // One for the client's end, none for the server's.
    hoard.pop();
    let mut waiting = server.connect();
    let busy = cpu_ticks(&stat);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(cpu_ticks(&stat) - busy <= 10, "accepting is tried without a pause");
    assert_eq!(server.metric("bellwether_http_connections"), 1.0, "the second client waits in the kernel's queue");
    hoard.clear();
    assert!(waiting.works());
    limit_descriptors(1024);
    server.drain(DrainKind::Stop);
    assert_eq!(server.report().cut, 0);
}

fn limit_descriptors(soft: usize) {
    let limit = format!("--nofile={soft}:");
    let set = Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).status().unwrap();
    assert!(set.success());
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// User and system time of this process, in hundredths of a second, from its open `/proc/self/stat`.
fn cpu_ticks(stat: &File) -> u64 {
    let mut text = [0; 1024];
    let count = stat.read_at(&mut text, 0).unwrap();
    let fields: Vec<_> =
        std::str::from_utf8(&text[..count]).unwrap().rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
