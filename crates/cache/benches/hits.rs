//! What a hit in memory costs, its floors, tags and counters included: `cargo bench -p cache`. It starts a Redis of its own.

#![allow(clippy::unwrap_used, reason = "a bench that cannot begin has failed")]

#[path = "../tests/memory/mod.rs"]
mod memory;

use criterion::{Criterion, criterion_group, criterion_main};

fn hits(criterion: &mut Criterion) {
    let worker = memory::Worker::start();
    criterion.bench_function("a value with three tags from memory", |bencher| bencher.iter(|| worker.hit()));
}

criterion_group!(benches, hits);
criterion_main!(benches);
