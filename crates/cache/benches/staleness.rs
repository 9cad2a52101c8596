//! How old answers are while others write: `cargo bench -p cache --bench staleness`. It starts a Redis of its own and four
//! workers, each with a thread of its own, and prints a table.
//!
//! Keys are chosen at random. A writer commits to the database and then invalidates; an answer is old by the time since the
//! commit that it does not show. Reads that begin before the writer has been told that its invalidation is published may be
//! old by right, and are counted all the same.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, reason = "a bench that cannot go on has failed")]

#[path = "../tests/cache/harness.rs"]
mod harness;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use test_support::{Histogram, Redis, unique_prefix};

use self::harness::{Database, Parts, Setup};

const WORKERS: usize = 4;
const KEYS: usize = 200;
const RUN: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Seen {
    reads: u64,
    old: Histogram,
}

fn main() {
    println!("| writes/s | reads/s | old answers | p50 | p99 | max |");
    println!("|---------:|--------:|------------:|----:|----:|----:|");
    for writes_per_second in [10, 100, 1_000] {
        measure(writes_per_second);
    }
}

fn measure(writes_per_second: u32) {
    let redis = Redis::start();
    let workers = Setup::new(redis.unix_url(), &unique_prefix()).workers(WORKERS);
    let keys: Arc<Vec<String>> = Arc::new((0..KEYS).map(|number| format!("row-{number}")).collect());
    let database = Database::with(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    let until = Instant::now() + RUN;
    let pause = Duration::from_secs(1) * WORKERS as u32 / writes_per_second;
    let mut readers = Vec::new();
    let mut writers = Vec::new();
    for worker in &workers {
        let (theirs, rows) = (Arc::clone(&database), Arc::clone(&keys));
        readers.push(worker.start(async move |parts| read_until(until, &parts, &theirs, &rows).await));
        let (theirs, rows) = (Arc::clone(&database), Arc::clone(&keys));
        writers.push(worker.start(async move |parts| write_until(until, &parts, &theirs, &rows, pause).await));
    }
    let mut all = Seen::default();
    for reader in readers {
        let seen = reader.recv_timeout(PATIENCE).unwrap();
        all.reads += seen.reads;
        all.old.merge(&seen.old);
    }
    let writes: u64 = writers.into_iter().map(|writer| writer.recv_timeout(PATIENCE).unwrap()).sum();
    let (seconds, old) = (RUN.as_secs_f64(), &all.old);
    let share = old.count() as f64 / all.reads as f64 * 1e6;
    let milliseconds = |age: Duration| format!("{:.2} ms", age.as_secs_f64() * 1e3);
    let [p50, p99, max] = [old.p50(), old.p99(), old.max()].map(milliseconds);
    let (writes, reads) = (writes as f64 / seconds, all.reads as f64 / seconds);
    println!("| {writes:.0} | {reads:.0} | {share:.0} in a million | {p50} | {p99} | {max} |");
}

async fn read_until(until: Instant, parts: &Parts, database: &Arc<Database>, keys: &[String]) -> Seen {
    let mut seen = Seen::default();
    loop {
        // Some at once, and then whatever else the worker has to do.
        for _ in 0..50 {
            let key = &keys[fastrand::usize(..keys.len())];
            let start = Instant::now();
            if start >= until {
                return seen;
            }
            let hit = database.read(parts, key).await.unwrap();
            seen.reads += 1;
            let age = database.staleness(key, hit.value.as_deref().copied(), start);
            if !age.is_zero() {
                seen.old.record(age);
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn write_until(until: Instant, parts: &Parts, database: &Arc<Database>, keys: &[String], pause: Duration) -> u64 {
    let mut writes = 0;
    while Instant::now() < until {
        let key = &keys[fastrand::usize(..keys.len())];
        database.commit(key);
        parts.prices.invalidate(&[key]).await;
        writes += 1;
        tokio::time::sleep(pause.mul_f64(2.0 * fastrand::f64())).await;
    }
    writes
}
