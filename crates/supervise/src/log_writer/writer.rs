//! The log-writer's own process: this thread empties all pipes and never waits for those that write.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::LogSettings;
use super::line::{Author, Origin, Stream};
use super::message::{Kind, MESSAGE_BYTES, Question, Tail, send_message};
use super::outputs::Outputs;
use super::source::{Progress, Source};
use crate::child::sys;
use crate::control::LogsWanted;
use crate::worker_side::set_process_name;

/// What is read from one pipe before the others have their turn.
const READ_BYTES: usize = 64 * 1024;

/// What the supervisor may say before the pipes have their turn.
const MESSAGES_PER_TURN: usize = 64;

/// Between turns that emptied all pipes, so that lines written one by one are read by the handful.
const REST: Duration = Duration::from_millis(1);

/// How long the consumers may take for the rest once everything has ended.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Runs until the supervisor, process `supervisor_pid`, says so, or until it and every process with output is gone.
pub(super) fn run(supervisor: OwnedFd, supervisor_pid: i32, settings: &LogSettings) {
    let _ = set_process_name("log-writer");
    let outputs = Outputs::new(settings, supervisor_pid);
    outputs.write_to_stdout();
    Collector::new(supervisor, outputs).run().finish(Instant::now() + LAST_PATIENCE);
}

/// Brings lines from the pipes to the outputs.
pub(super) struct Collector {
    /// `None` once the supervisor is gone.
    supervisor: Option<OwnedFd>,
    sources: Vec<Source>,
    outputs: Outputs,
    /// What is read from a pipe, before it is lines.
    buffer: Vec<u8>,
}

/// A message of the supervisor's.
struct Message<'a> {
    kind: Kind,
    text: &'a [u8],
    descriptors: Vec<OwnedFd>,
}

/// Who has something to be read, by index, or room for something to be written.
struct Awake {
    sources: Vec<bool>,
    viewers: Vec<bool>,
    supervisor: bool,
}

impl Collector {
    pub(super) fn new(supervisor: OwnedFd, outputs: Outputs) -> Self {
        Self { supervisor: Some(supervisor), sources: Vec::new(), outputs, buffer: vec![0; READ_BYTES] }
    }

    pub(super) fn run(mut self) -> Outputs {
        let mut is_told_to_end = false;
        while !is_told_to_end && (self.supervisor.is_some() || !self.sources.is_empty()) {
            let awake = self.wait();
            let time = Timestamp::now();
            let progress = self.read(&awake.sources, time);
            for (viewer, _) in self.outputs.viewers.iter_mut().zip(&awake.viewers).filter(|(_, is_awake)| **is_awake) {
                viewer.listen();
            }
            if awake.supervisor {
                is_told_to_end = self.listen_to_supervisor(time);
            }
            self.outputs.flush(time);
            if progress == Some(Progress::Empty) {
                thread::sleep(REST);
            }
        }
        // Whoever still holds a pipe was started by a process that has ended; its output so far counts.
        for source in &mut self.sources {
            source.read_all(&mut self.buffer, Timestamp::now(), &mut self.outputs);
        }
        self.outputs
    }

    fn wait(&self) -> Awake {
        let sources = self.sources.iter().map(|source| (source.as_fd(), PollFlags::POLLIN));
        let viewers = self.outputs.viewers.iter().map(|viewer| viewer.watched());
        let supervisor = self.supervisor.iter().map(|socket| (socket.as_fd(), PollFlags::POLLIN));
        let all = sources.chain(viewers).chain(supervisor);
        let mut watched: Vec<_> = all.map(|(descriptor, flags)| PollFd::new(descriptor, flags)).collect();
        // An interrupted wait reports nothing, and the loop waits again.
        let _ = poll(&mut watched, PollTimeout::NONE);
        let mut awake = watched.iter().map(|descriptor| descriptor.any().unwrap_or(false));
        Awake {
            sources: awake.by_ref().take(self.sources.len()).collect(),
            viewers: awake.by_ref().take(self.outputs.viewers.len()).collect(),
            supervisor: awake.next().unwrap_or(false),
        }
    }

    /// Reads once from every source that is awake; tells whether that has emptied all of them, if there was any.
    fn read(&mut self, awake: &[bool], time: Timestamp) -> Option<Progress> {
        let (mut awake, mut all) = (awake.iter(), None);
        self.sources.retain_mut(|source| {
            if awake.next() != Some(&true) {
                return true;
            }
            let progress = source.read(&mut self.buffer, time, &mut self.outputs);
            if all != Some(Progress::Full) {
                all = Some(progress);
            }
            progress != Progress::Ended
        });
        all
    }

    /// Takes what the supervisor says; tells whether it said that this is the end.
    fn listen_to_supervisor(&mut self, time: Timestamp) -> bool {
        for _ in 0..MESSAGES_PER_TURN {
            let mut message = [0; 1 + MESSAGE_BYTES];
            let Some(socket) = &self.supervisor else { return false };
            match sys::receive_with_descriptors(socket.as_fd(), &mut message) {
                Ok((0, _)) => self.supervisor = None,
                Ok((length, descriptors)) => match Kind::of(message[0]) {
                    Some(Kind::End) => return true,
                    Some(kind) => {
                        // One that cannot be read is passed over, as those of an unknown kind are.
                        let _ = self.hear(Message { kind, text: &message[1..length], descriptors }, time);
                    }
                    None => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.supervisor = None,
            }
        }
        false
    }

    fn hear(&mut self, message: Message<'_>, time: Timestamp) -> Option<()> {
        let Message { kind, text, descriptors } = message;
        match kind {
            Kind::Line => {
                let (milliseconds, text) = text.split_first_chunk()?;
                let said = Timestamp::from_millisecond(i64::from_le_bytes(*milliseconds)).ok()?;
                for line in text.split(|&byte| byte == b'\n') {
                    self.outputs.line_of_supervisor(said, line);
                }
            }
            Kind::Verbatim => self.outputs.verbatim(time, text),
            Kind::Source => {
                let author: Author = serde_json::from_slice(text).ok()?;
                let [stdout, stderr] = descriptors.try_into().ok()?;
                let stdout = Source::new(Origin::new(author.clone(), Some(Stream::Stdout)), stdout);
                self.sources.extend([stdout, Source::new(Origin::new(author, Some(Stream::Stderr)), stderr)]);
            }
            Kind::Tail => self.answer(serde_json::from_slice(text).ok()?, time),
            Kind::Viewer => {
                let wanted: LogsWanted = serde_json::from_slice(text).ok()?;
                let [connection] = descriptors.try_into().ok()?;
                self.outputs.add_viewer(connection, wanted).ok()?;
            }
            Kind::Reopen => self.outputs.reopen(),
            Kind::End => {}
        }
        Some(())
    }

    fn answer(&mut self, question: Question, time: Timestamp) {
        let Question { pid, lines } = question;
        for source in self.sources.iter_mut().filter(|source| source.origin.pid() == pid) {
            source.read_all(&mut self.buffer, time, &mut self.outputs);
        }
        let written = self.outputs.last_of_process(lines as usize, pid);
        let tail = Tail::of(pid, written.iter().map(|written| written.line.as_slice()));
        if let Some(socket) = &self.supervisor {
            // A supervisor that takes no answer does without it.
            let _ = send_message(socket.as_fd(), Kind::Tail, &tail.encode(), &[]);
        }
    }
}
