//! What is answered from memory takes none.

#![allow(clippy::unwrap_used, reason = "in a test an unexpected failure is a failed test")]

mod memory;

use allocation_counter::measure;
use cache::Source;

#[test]
fn a_hit_in_memory_allocates_nothing() {
    let worker = memory::Worker::start();
    let info = measure(|| assert_eq!(worker.hit().source, Source::L1));
    assert_eq!(info.count_total, 0, "{info:?}");
}
