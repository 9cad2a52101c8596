//! The log-writer's own process: one thread empties all pipes, the other writes to stdout and may be stuck for ever.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Kind, MESSAGE_BYTES};
use crate::child::sys;
use crate::worker_side::set_process_name;

/// Longer lines are split.
const LINE_BYTES: usize = 16 * 1024;

/// How much is kept for a consumer that is behind; what does not fit is dropped and counted.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// How long the consumer may take for the rest once everything has ended.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Runs until the supervisor says so, or until it and every process with output is gone.
pub(super) fn run(supervisor: OwnedFd) {
    let _ = set_process_name("log-writer");
    let output = Output::default();
    // Without the thread nothing is written, but the pipes are emptied and no worker is held up.
    let _ = thread::Builder::new().name("stdout".to_owned()).spawn({
        let output = output.clone();
        move || output.write_to_stdout()
    });
    Reader { supervisor: Some(supervisor), sources: Vec::new(), output: output.clone() }.run();
    output.finish(LAST_PATIENCE);
}

/// Empties the pipes.
struct Reader {
    /// `None` once the supervisor is gone.
    supervisor: Option<OwnedFd>,
    sources: Vec<Source>,
    output: Output,
}

/// The output of one process.
struct Source {
    prefix: String,
    pipe: File,
    line: Vec<u8>,
}

enum Progress {
    More,
    Ended,
}

impl Reader {
    fn run(mut self) {
        while self.supervisor.is_some() || !self.sources.is_empty() {
            let ready = self.wait();
            let (sources, supervisor) = ready.split_at(self.sources.len());
            let mut alive = sources.iter();
            let output = &self.output;
            self.sources.retain_mut(|source| {
                let readable = alive.next().is_some_and(|ready| *ready);
                !readable || matches!(source.read(output), Progress::More)
            });
            if supervisor.first() == Some(&true) && self.listen_to_supervisor() == Some(Kind::End) {
                break;
            }
        }
        // Whoever still holds a pipe was started by a process that has ended; its output so far counts.
        for source in &mut self.sources {
            while source.has_something() && matches!(source.read(&self.output), Progress::More) {}
            source.end_line(&self.output);
        }
    }

    /// Tells which sources, and last whether the supervisor, have something to read.
    fn wait(&self) -> Vec<bool> {
        let pipes = self.sources.iter().map(|source| source.pipe.as_fd());
        let all = pipes.chain(self.supervisor.iter().map(AsFd::as_fd));
        let mut watched: Vec<_> = all.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        // An interrupted wait reports nothing, and the loop waits again.
        let _ = poll(&mut watched, PollTimeout::NONE);
        watched.iter().map(|descriptor| descriptor.any().unwrap_or(false)).collect()
    }

    fn listen_to_supervisor(&mut self) -> Option<Kind> {
        let mut message = [0; 1 + MESSAGE_BYTES];
        let received = sys::receive_with_descriptor(self.supervisor.as_ref()?.as_fd(), &mut message);
        let (length, descriptor) = match received {
            Ok((0, _)) => {
                self.supervisor = None;
                return None;
            }
            Ok(received) => received,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return None;
            }
            Err(_) => {
                self.supervisor = None;
                return None;
            }
        };
        let text = &message[1..length];
        let kind = Kind::of(message[0])?;
        match (kind, descriptor) {
            (Kind::Line, _) => self.output.push_line("supervisor| ", text),
            (Kind::Verbatim, _) => self.output.push(text),
            (Kind::Source, Some(pipe)) => {
                let prefix = format!("{}| ", String::from_utf8_lossy(text));
                self.sources.push(Source { prefix, pipe: pipe.into(), line: Vec::new() });
            }
            (Kind::Source, None) | (Kind::End, _) => {}
        }
        Some(kind)
    }
}

impl Source {
    fn read(&mut self, output: &Output) -> Progress {
        let mut bytes = [0; 64 * 1024];
        match self.pipe.read(&mut bytes) {
            Ok(0) => {
                self.end_line(output);
                Progress::Ended
            }
            Ok(count) => {
                self.take(&bytes[..count], output);
                Progress::More
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Progress::More
            }
            Err(_) => Progress::Ended,
        }
    }

    fn take(&mut self, bytes: &[u8], output: &Output) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let mut rest = piece;
            while !rest.is_empty() {
                let room = LINE_BYTES - self.line.len();
                let (now, later) = rest.split_at(rest.len().min(room));
                self.line.extend_from_slice(now);
                rest = later;
                if self.line.ends_with(b"\n") || self.line.len() == LINE_BYTES {
                    self.end_line(output);
                }
            }
        }
    }

    fn end_line(&mut self, output: &Output) {
        if !self.line.is_empty() {
            let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            output.push_line(&self.prefix, text);
            self.line.clear();
        }
    }

    fn has_something(&self) -> bool {
        let mut watched = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut watched, PollTimeout::ZERO), Ok(1))
    }
}

/// Text on its way from the pipes to stdout, bounded.
#[derive(Clone, Default)]
struct Output {
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
    dropped_lines: u64,
    /// The writing thread has taken text and is not done with it.
    writing: bool,
}

impl Output {
    fn push_line(&self, prefix: &str, text: &[u8]) {
        let mut line = Vec::with_capacity(prefix.len() + text.len() + 1);
        line.extend_from_slice(prefix.as_bytes());
        line.extend_from_slice(text);
        line.push(b'\n');
        self.push(&line);
    }

    fn push(&self, text: &[u8]) {
        let mut waiting = self.lock();
        if waiting.text.len() + text.len() > KEPT_BYTES {
            waiting.dropped_lines += 1;
            return;
        }
        if waiting.dropped_lines > 0 && waiting.text.len() < KEPT_BYTES / 2 {
            let notice =
                format!("supervisor| {} lines were dropped, their reader was too slow\n", waiting.dropped_lines);
            waiting.text.extend_from_slice(notice.as_bytes());
            waiting.dropped_lines = 0;
        }
        waiting.text.extend_from_slice(text);
        self.shared.changed.notify_all();
    }

    /// Writes for ever, as fast as stdout takes it.
    fn write_to_stdout(&self) {
        // Not through `io::stdout`, whose buffer is a copy of the supervisor's as it was at the fork.
        let Ok(mut stdout) = io::stdout().as_fd().try_clone_to_owned().map(File::from) else { return };
        loop {
            let mut waiting = self.lock();
            while waiting.text.is_empty() {
                waiting = self.shared.changed.wait(waiting).expect("no thread panics while it holds the lock");
            }
            let text = std::mem::take(&mut waiting.text);
            waiting.writing = true;
            drop(waiting);
            // A consumer that is gone, or a full disk, costs the text and nothing else.
            let _ = write_all(&mut stdout, &text);
            self.lock().writing = false;
            self.shared.changed.notify_all();
        }
    }

    /// Waits until everything is written, but no longer than `patience`.
    fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut waiting = self.lock();
        while !waiting.text.is_empty() || waiting.writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.shared.changed.wait_timeout(waiting, left);
            waiting = woken.expect("no thread panics while it holds the lock").0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.shared.state.lock().expect("no thread panics while it holds the lock")
    }
}

/// As `Write::write_all`, also to a terminal or pipe that another program has made non-blocking.
fn write_all(stdout: &mut File, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match stdout.write(text) {
            Ok(count) => text = &text[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
