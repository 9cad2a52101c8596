//! Work that goes on when the request that started it has been answered or given up.

use std::cell::RefCell;
use std::future::Future;
use std::panic::resume_unwind;

use telemetry::{RequestContext, in_request};
use tokio_util::task::TaskTracker;

thread_local! {
    /// The detached tasks of this thread, which all of its servers wait for when they drain.
    static DETACHED: RefCell<TaskTracker> = RefCell::new(TaskTracker::new());
}

/// Runs `work` as a task of its own on this thread and waits for its result. Whoever drops the returned future, for
/// example because the client has gone or the handler's deadline is over, stops waiting but does not stop the work, and a
/// drain waits for it.
///
/// Every handler that changes something does so in here.
///
/// # Panics
/// If `work` panics, which answers the request with a 500. The work begins at once, so this needs a tokio runtime whose
/// tasks are local to the thread.
pub fn detach<F>(work: F) -> impl Future<Output = F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let tracker = tracker();
    let task = match RequestContext::current() {
        Some(context) => tracker.spawn_local(in_request(context, work)),
        None => tracker.spawn_local(work),
    };
    async move {
        match task.await {
            Ok(output) => output,
            Err(error) => resume_unwind(error.into_panic()),
        }
    }
}

/// How many detached tasks of this thread have not ended.
pub(crate) fn unfinished() -> usize {
    tracker().len()
}

/// Returns when no detached task of this thread is left.
pub(crate) async fn finished() {
    let tracker = tracker();
    // Closing only says that somebody waits; a request that is still being answered may detach more.
    tracker.close();
    tracker.wait().await;
}

fn tracker() -> TaskTracker {
    DETACHED.with_borrow(TaskTracker::clone)
}
