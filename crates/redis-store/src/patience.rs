//! A timeout that tells a late reply from a busy loop.

use std::{future::Future, task::Poll, time::Duration};

use futures_util::poll;

/// The wait is made of this many timers, each of which needs its own turn of the loop: a loop that was blocked for a
/// second has used up one of them, not the whole wait.
const TIMERS: u32 = 3;

/// How often the loop must turn, and so read from its sockets, between the end of the wait and the verdict.
const TURNS: u32 = 2;

/// What `future` gives within `limit`, or `None` when it is late.
///
/// Time that the loop spent elsewhere does not count against the future, beyond one third of the limit for each such
/// stretch, and the future is asked again after the loop has turned twice since the limit.
pub(crate) async fn within<F: Future + Unpin>(limit: Duration, mut future: F) -> Option<F::Output> {
    for _ in 0..TIMERS {
        if let Ok(output) = tokio::time::timeout(limit / TIMERS, &mut future).await {
            return Some(output);
        }
    }
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
        if let Poll::Ready(output) = poll!(&mut future) {
            return Some(output);
        }
    }
    None
}
