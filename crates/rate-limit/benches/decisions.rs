//! What a decision costs that needs no call: `cargo bench -p rate-limit`. It starts a Redis of its own, which grants and denies.

#![allow(clippy::unwrap_used, reason = "a bench that cannot begin has failed")]

#[path = "../tests/memory/mod.rs"]
mod memory;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};

use self::memory::Worker;

fn decisions(criterion: &mut Criterion) {
    let worker = Worker::start();
    let denied = worker.request(memory::DENIED);
    criterion.bench_function("a request is resolved", |bencher| bencher.iter(|| worker.request(memory::GRANTED)));
    criterion.bench_function("denied from memory", |bencher| {
        bencher.iter_custom(|iterations| {
            let (mut left, mut spent) = (iterations, Duration::ZERO);
            while left > 0 {
                // A denial is believed for a second.
                worker.remember_denial(&denied);
                let (begun, before) = (Instant::now(), left);
                while left > 0 && begun.elapsed() < Duration::from_millis(500) {
                    for _ in 0..left.min(10_000) {
                        black_box(worker.limiter.try_check(&denied));
                    }
                    left -= left.min(10_000);
                }
                assert!(before > left, "nothing was denied");
                spent += begun.elapsed();
            }
            spent
        });
    });
    let granted = worker.request(memory::GRANTED);
    criterion.bench_function("admitted from a grant", |bencher| {
        bencher.iter_custom(|iterations| {
            let (mut left, mut spent) = (iterations, Duration::ZERO);
            while left > 0 {
                worker.hold_a_grant(&granted);
                let begun = Instant::now();
                while left > 0 && black_box(worker.limiter.try_check(&granted)).is_some() {
                    left -= 1;
                }
                spent += begun.elapsed();
            }
            spent
        });
    });
}

criterion_group!(benches, decisions);
criterion_main!(benches);
