//! Where log lines go: never in the way of the thread that logs. What cannot be written is dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that wait for a slow reader before lines are dropped.
const LONGEST_QUEUE: usize = 1024 * 1024;
/// How long a descriptor that does not block is left alone when it is full.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Lines that were dropped in this process.
pub(crate) static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The way to the log's descriptor. Lines end with a line feed.
#[derive(Clone)]
pub(crate) enum Output {
    /// A thread writes, so that the descriptor may block for as long as it likes.
    Background(Arc<Queue>),
    /// Written at once, to something that does not block.
    Direct(Arc<Mutex<Direct>>),
}

impl Output {
    pub(crate) fn background(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let shared = Arc::clone(&queue);
        let thread = thread::Builder::new().name("log".into()).stack_size(128 * 1024);
        // It lives as long as the process and ends with it; `flush` waits for what it has to write.
        drop(thread.spawn(move || shared.write_for_ever(writer))?);
        Ok(Self::Background(queue))
    }

    pub(crate) fn direct(writer: impl Write + Send + 'static) -> Self {
        Self::Direct(Arc::new(Mutex::new(Direct { writer: Box::new(writer), rest: Vec::new() })))
    }

    pub(crate) fn write(&self, line: &[u8]) {
        match self {
            Self::Background(queue) => queue.push(line),
            Self::Direct(direct) => direct.lock().unwrap_or_else(PoisonError::into_inner).write(line),
        }
    }

    /// Waits until everything is written, at most for `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        if let Self::Background(queue) = self {
            let state = queue.state();
            drop(queue.idle.wait_timeout_while(state, patience, |state| !state.is_idle()));
        }
    }
}

/// Lines on their way to the thread that writes them.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
    idle: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: Vec<u8>,
    writing: bool,
}

impl QueueState {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.writing
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        // Nothing under the lock can leave half a change behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.waiting.len() + line.len() > LONGEST_QUEUE {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn write_for_ever(&self, mut writer: impl Write) {
        let mut batch = Vec::new();
        loop {
            let state = self.filled.wait_while(self.state(), |state| state.waiting.is_empty());
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut state.waiting, &mut batch);
            state.writing = true;
            drop(state);
            write_lines(&mut writer, &batch);
            batch.clear();
            let mut state = self.state();
            state.writing = false;
            if state.is_idle() {
                self.idle.notify_all();
            }
        }
    }
}

/// Writes whole lines; those that fail are counted.
fn write_lines(writer: &mut impl Write, lines: &[u8]) {
    let mut rest = lines;
    while !rest.is_empty() {
        match writer.write(rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    DROPPED.fetch_add(count_lines(rest), Ordering::Relaxed);
}

/// A writer that does not block, and the rest of a line of which it took only the beginning.
pub(crate) struct Direct {
    writer: Box<dyn Write + Send>,
    rest: Vec<u8>,
}

impl Direct {
    fn write(&mut self, line: &[u8]) {
        // The rest goes first: no line may begin within another.
        let rest = std::mem::take(&mut self.rest);
        let left = self.write_some(&rest);
        self.rest.extend_from_slice(&rest[rest.len() - left..]);
        if left > 0 {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let left = self.write_some(line);
        if left == line.len() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        } else {
            self.rest.extend_from_slice(&line[line.len() - left..]);
        }
    }

    /// Writes until the writer takes no more; how many bytes are left.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let mut left = bytes;
        while !left.is_empty() {
            match self.writer.write(left) {
                Ok(0) => break,
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        left.len()
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
