//! What is decided from memory takes none.

#![allow(clippy::unwrap_used, reason = "in a test an unexpected failure is a failed test")]

mod memory;

use allocation_counter::measure;
use rate_limit::{Source, Verdict};

use self::memory::Worker;

#[test]
fn decisions_from_memory_allocate_nothing() {
    let worker = Worker::start();
    let (denied, granted) = (worker.request(memory::DENIED), worker.request(memory::GRANTED));
    worker.remember_denial(&denied);
    let info = measure(|| {
        let decision = worker.limiter.try_check(&denied).unwrap();
        assert_eq!((decision.verdict(), decision.source()), (Verdict::Denied, Source::DenialCache));
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    worker.hold_a_grant(&granted);
    let info = measure(|| {
        let decision = worker.limiter.try_check(&granted).unwrap();
        assert_eq!((decision.verdict(), decision.source()), (Verdict::Allowed, Source::Lease));
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    let info = measure(|| drop(worker.request(memory::DENIED)));
    assert_eq!(info.count_total, 0, "{info:?}");
}
