//! Looking at a cluster the whole time while something happens to it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Cluster, ready_workers_in, status_by};

/// Often enough to meet a worker that is missing for as long as the next one takes to start.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Cluster {
    /// Runs `body` while `look` is shown every status there is, about a hundred a second.
    pub(crate) fn watched<T>(&self, mut look: impl FnMut(&Value) + Send, body: impl FnOnce() -> T) -> T {
        let ended = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                let mut control = self.control();
                while !ended.load(Ordering::Relaxed) {
                    look(&status_by(&mut control).expect("the supervisor answers all the time"));
                    thread::sleep(LOOK_EVERY);
                }
            });
            // A panic must not leave the watcher running: the scope would wait for it for ever.
            let result = catch_unwind(AssertUnwindSafe(body));
            ended.store(true, Ordering::Relaxed);
            result
        });
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs `body` and sees to it that there are never fewer ready workers than `count`.
    pub(crate) fn never_below<T>(&self, count: usize, body: impl FnOnce() -> T) -> T {
        let mut fewest = None;
        let look = |status: &Value| {
            let ready = ready_workers_in(status).len();
            if fewest.as_ref().is_none_or(|(least, _)| ready < *least) {
                fewest = Some((ready, status.to_string()));
            }
        };
        let result = self.watched(look, body);
        let (least, status) = fewest.expect("it was looked at");
        assert!(least >= count, "{least} workers were ready at a time instead of {count}: {status}");
        result
    }
}
