//! Lines on their way from the thread that empties the pipes to one that may be stuck for ever, bounded.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How much is kept for a thread that is behind; what does not fit is dropped and counted.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Lines are handed on when so much has come together, or nothing more has come.
const BATCH_BYTES: usize = 64 * 1024;

/// The end into which lines are put. Never waits for more than a moment.
#[derive(Default)]
pub(super) struct Sender {
    queue: Queue,
    batch: Vec<u8>,
    batch_lines: u64,
}

/// The queue itself, shared by both threads.
#[derive(Clone, Default)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// Once a line is dropped, so are those behind it until the text is taken: the gap is in one place.
    dropped_lines: u64,
    reopen: bool,
    /// What was taken last is not done yet.
    is_busy: bool,
}

/// What a writing thread has to do next, in this order.
pub(super) struct Work {
    /// Whole lines.
    pub(super) text: Vec<u8>,
    /// How many are missing behind them.
    pub(super) dropped_lines: u64,
    /// Close the file then, and open what lies at its path.
    pub(super) reopen: bool,
}

impl Sender {
    /// Puts a line, or several that belong together, into the batch.
    pub(super) fn add(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(line);
        self.batch_lines += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands the batch on.
    pub(super) fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.queue.push(&self.batch, self.batch_lines);
            self.batch.clear();
            self.batch_lines = 0;
        }
    }

    /// Has the file be opened anew behind what was put in so far.
    pub(super) fn reopen(&mut self) {
        self.flush();
        self.queue.lock().reopen = true;
        self.queue.shared.changed.notify_all();
    }

    /// The other end.
    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }
}

impl Queue {
    /// Puts whole lines in, or counts them as dropped.
    pub(super) fn push(&self, text: &[u8], lines: u64) {
        let mut waiting = self.lock();
        if waiting.dropped_lines > 0 || waiting.text.len() + text.len() > KEPT_BYTES {
            waiting.dropped_lines += lines;
            return;
        }
        waiting.text.extend_from_slice(text);
        self.shared.changed.notify_all();
    }

    /// Waits for something to do. Whoever has taken it says so when it is done.
    pub(super) fn take(&self) -> Work {
        let mut waiting = self.lock();
        while waiting.text.is_empty() && !waiting.reopen {
            waiting = self.shared.changed.wait(waiting).expect("no thread panics while it holds the lock");
        }
        waiting.is_busy = true;
        let (text, dropped_lines) = (std::mem::take(&mut waiting.text), std::mem::take(&mut waiting.dropped_lines));
        Work { text, dropped_lines, reopen: std::mem::take(&mut waiting.reopen) }
    }

    /// What was taken is done.
    pub(super) fn done(&self) {
        self.lock().is_busy = false;
        self.shared.changed.notify_all();
    }

    /// Waits for `pause`, or until the file is to be opened anew, which is what this tells.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut waiting = self.lock();
        while !waiting.reopen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            waiting = self.wait_for_change(waiting, left);
        }
        waiting.reopen = false;
        true
    }

    /// Waits until everything is written, but not beyond `deadline`.
    pub(super) fn finish(&self, deadline: Instant) {
        let mut waiting = self.lock();
        while !waiting.text.is_empty() || waiting.is_busy {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.wait_for_change(waiting, left);
        }
    }

    fn wait_for_change<'a>(&self, waiting: MutexGuard<'a, Waiting>, limit: Duration) -> MutexGuard<'a, Waiting> {
        self.shared.changed.wait_timeout(waiting, limit).expect("no thread panics while it holds the lock").0
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.shared.state.lock().expect("no thread panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_in_one_gap() {
        let mut sender = Sender::default();
        let queue = sender.queue();
        let line = vec![b'x'; 1_000];
        for _ in 0..10_000 {
            sender.add(&line);
        }
        sender.flush();
        let work = queue.take();
        assert!(work.text.len() <= KEPT_BYTES && work.text.len() > KEPT_BYTES - 2 * BATCH_BYTES);
        assert_eq!(work.text.len() / 1_000 + work.dropped_lines as usize, 10_000);
        sender.add(b"next");
        sender.flush();
        let work = queue.take();
        assert_eq!((work.text.as_slice(), work.dropped_lines), (&b"next"[..], 0));
    }

    #[test]
    fn a_reopening_comes_behind_what_was_put_in_before() {
        let mut sender = Sender::default();
        let queue = sender.queue();
        sender.add(b"before");
        sender.reopen();
        let work = queue.take();
        assert_eq!((work.text.as_slice(), work.reopen), (&b"before"[..], true));
        sender.reopen();
        assert!(queue.pause(Duration::from_secs(60)), "it is noticed by a thread that waits for its disk");
        assert!(!queue.pause(Duration::ZERO), "it is noticed once");
    }

    #[test]
    fn the_end_waits_for_what_is_being_written_but_not_for_ever() {
        let mut sender = Sender::default();
        let queue = sender.queue();
        sender.add(b"last");
        sender.flush();
        drop(queue.take());
        let started = Instant::now();
        queue.finish(started + Duration::from_millis(20));
        assert!(started.elapsed() >= Duration::from_millis(20), "nobody has said that it is written");
        queue.done();
        queue.finish(started + Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
