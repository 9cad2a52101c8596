//! The log-writer: a child process that alone writes to stdout, so that nothing else ever waits for whoever reads it.
//!
//! Each process's output is a pipe whose reading end is handed to the log-writer; the supervisor keeps a copy, so
//! that a killed log-writer's successor goes on where it stopped and no worker ever writes into a broken pipe.

mod writer;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use serde::{Deserialize, Serialize};

use crate::child::sys;

/// A log-writer that dies at once is not started again sooner than this after its last start.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The longest text in one message; longer ones are cut into several.
const MESSAGE_BYTES: usize = 32 * 1024;

/// The first byte of a message says what the rest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A line of the supervisor's own.
    Line,
    /// Text that goes out as it is.
    Verbatim,
    /// The name of a new source; its pipe comes along.
    Source,
    /// Everything was said: write what is left and end.
    End,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Line => b'L',
            Self::Verbatim => b'V',
            Self::Source => b'S',
            Self::End => b'E',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Line, Self::Verbatim, Self::Source, Self::End].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// The supervisor's handle on the log-writer. Nothing here blocks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogWriter {
    #[serde(with = "crate::descriptor")]
    socket: OwnedFd,
    pid: i32,
    #[serde(with = "crate::moment")]
    started: Instant,
    /// Set while no log-writer lives.
    #[serde(with = "crate::moment::option")]
    restart_at: Option<Instant>,
    sources: Vec<Rc<Source>>,
    /// Sources the log-writer does not know yet because its socket was full.
    #[serde(skip)]
    unannounced: VecDeque<Rc<Source>>,
    dropped: u64,
}

/// The ends of the pipes with what one process writes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

#[derive(Debug, Serialize, Deserialize)]
struct Source {
    name: String,
    pid: i32,
    #[serde(with = "crate::descriptor")]
    pipe: OwnedFd,
}

impl LogWriter {
    /// Forks the log-writer. This process must have one thread only.
    pub(crate) fn start(now: Instant) -> io::Result<Self> {
        let (socket, pid) = fork()?;
        Ok(Self {
            socket,
            pid,
            started: now,
            restart_at: None,
            sources: Vec::new(),
            unannounced: VecDeque::new(),
            dropped: 0,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Writes a line of the supervisor's own, with the time; drops it when the log-writer is not listening.
    pub(crate) fn line(&mut self, text: &str) {
        let time = Timestamp::now();
        self.say(Kind::Line, &format!("{time:.3} {text}"));
    }

    /// Writes `text` as it is.
    pub(crate) fn verbatim(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MESSAGE_BYTES));
            self.say(Kind::Verbatim, piece);
            rest = after;
        }
    }

    /// Has the log-writer read the output of process `pid` from `pipes`, with `name` before each line.
    pub(crate) fn add_source(&mut self, name: &str, pid: i32, pipes: Pipes) {
        for pipe in [pipes.stdout, pipes.stderr] {
            let source = Rc::new(Source { name: name.to_owned(), pid, pipe });
            self.sources.push(Rc::clone(&source));
            self.unannounced.push_back(source);
        }
        self.announce();
    }

    /// Process `pid` has ended. What it wrote before is still read.
    pub(crate) fn forget_source(&mut self, pid: i32) {
        self.sources.retain(|source| source.pid != pid);
    }

    /// The log-writer has ended, which it should not have.
    pub(crate) fn died(&mut self, now: Instant) {
        self.restart_at = Some(now.max(self.started + RESTART_AFTER));
    }

    /// When [`LogWriter::restart_if_due`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.restart_at
    }

    pub(crate) fn restart_if_due(&mut self, now: Instant) {
        if self.restart_at.is_none_or(|at| now < at) {
            return;
        }
        self.started = now;
        match fork() {
            Ok((socket, pid)) => {
                (self.socket, self.pid, self.restart_at) = (socket, pid, None);
                self.unannounced = self.sources.iter().cloned().collect();
                self.announce();
                self.line("the log-writer had ended and was started again");
            }
            Err(_) => self.restart_at = Some(now + RESTART_AFTER),
        }
    }

    /// The socket to the log-writer, while something waits for room in it.
    pub(crate) fn wants_room(&self) -> Option<BorrowedFd<'_>> {
        (!self.unannounced.is_empty() && self.restart_at.is_none()).then(|| self.socket.as_fd())
    }

    /// Hands over the sources the log-writer does not know yet, as far as there is room.
    pub(crate) fn announce(&mut self) {
        while let Some(source) = self.unannounced.front() {
            match self.send(Kind::Source, source.name.as_bytes(), Some(&source.pipe)) {
                Ok(()) => self.unannounced.pop_front(),
                Err(Errno::EINTR) => continue,
                Err(_) => break,
            };
        }
    }

    /// Has the log-writer write what is left and waits for it, but no longer than `patience`.
    pub(crate) fn finish(mut self, patience: Duration) {
        self.announce();
        let _ = self.send(Kind::End, b"", None);
        let mut hangup = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut hangup, patience);
    }

    fn say(&mut self, kind: Kind, text: &str) {
        if self.dropped > 0 {
            let notice = format!("{} lines of the supervisor's own were dropped", self.dropped);
            if self.send(Kind::Line, notice.as_bytes(), None).is_ok() {
                self.dropped = 0;
            }
        }
        if self.send(kind, text.as_bytes(), None).is_err() {
            self.dropped += 1;
        }
    }

    fn send(&self, kind: Kind, text: &[u8], pipe: Option<&OwnedFd>) -> nix::Result<()> {
        let text = &text[..text.len().min(MESSAGE_BYTES)];
        let kind = [kind.byte()];
        let parts = [IoSlice::new(&kind), IoSlice::new(text)];
        let descriptors: Vec<_> = pipe.iter().map(|pipe| pipe.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, rights, flags, None).map(drop)
    }
}

fn fork() -> io::Result<(OwnedFd, i32)> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    let pid = sys::fork_function(theirs, writer::run)?;
    Ok((ours, pid))
}
