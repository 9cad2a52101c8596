//! The log-writer: a child process that alone writes to stdout and files, so that nothing else ever waits for whoever reads
//! the one or for the disk.
//!
//! Each process's output are two pipes whose reading ends are handed to the log-writer; the supervisor keeps copies, so
//! that a killed log-writer's successor goes on where it stopped and no worker ever writes into a broken pipe.

mod files;
mod journal;
mod line;
mod message;
mod outputs;
mod queue;
mod recent;
mod rotation;
mod source;
mod stdout;
mod viewer;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use nix::unistd::getpid;

use serde::{Deserialize, Serialize};

pub(crate) use self::journal::is_journal;
pub(crate) use self::line::Author;
pub(crate) use self::message::Tail;
use self::message::{Kind, MESSAGE_BYTES, Question, send_message};
use crate::LogFiles;
use crate::child::sys;
use crate::control::LogsWanted;

/// A log-writer that dies at once is not started again sooner than this after its last start.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The supervisor's handle on the log-writer. Nothing here blocks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogWriter {
    settings: LogSettings,
    #[serde(with = "crate::handover::descriptor")]
    socket: OwnedFd,
    pid: i32,
    #[serde(with = "crate::handover::moment")]
    started: Instant,
    /// Set while no log-writer lives.
    #[serde(with = "crate::handover::moment::option")]
    restart_at: Option<Instant>,
    /// It has closed its end, so there is nothing to wait for until the next one is started.
    hung_up: bool,
    sources: Vec<Rc<Source>>,
    /// What the log-writer does not know yet because its socket was full.
    #[serde(skip)]
    waiting: VecDeque<Waiting>,
    dropped: u64,
}

/// Where lines go, and how they look there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LogSettings {
    /// JSON lines in the place of prefixed text.
    pub(crate) json: bool,
    /// Besides stdout.
    pub(crate) files: Option<LogFiles>,
}

/// The ends of the pipes with what one process writes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pipes {
    #[serde(with = "crate::handover::descriptor")]
    pub(crate) stdout: OwnedFd,
    #[serde(with = "crate::handover::descriptor")]
    pub(crate) stderr: OwnedFd,
}

#[derive(Debug, Serialize, Deserialize)]
struct Source {
    author: Author,
    pipes: Pipes,
}

#[derive(Debug)]
enum Waiting {
    Source(Rc<Source>),
    Question(Question),
    Reopen,
}

impl LogWriter {
    /// Forks the log-writer. This process must have one thread only. Under systemd's journal no files are written.
    pub(crate) fn start(mut settings: LogSettings, now: Instant) -> io::Result<Self> {
        settings.files = settings.files.filter(|_| !is_journal());
        let (socket, pid) = fork(&settings)?;
        Ok(Self {
            settings,
            socket,
            pid,
            started: now,
            restart_at: None,
            hung_up: false,
            sources: Vec::new(),
            waiting: VecDeque::new(),
            dropped: 0,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Writes a line of the supervisor's own, with the time; drops it when the log-writer is not listening.
    pub(crate) fn line(&mut self, text: &str) {
        let mut line = Timestamp::now().as_millisecond().to_le_bytes().to_vec();
        let most = MESSAGE_BYTES - line.len();
        line.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(most)]);
        self.say(Kind::Line, &line);
    }

    /// Writes `text` to stdout as it is, and nowhere else.
    pub(crate) fn verbatim(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MESSAGE_BYTES));
            self.say(Kind::Verbatim, piece.as_bytes());
            rest = after;
        }
    }

    /// Has the log-writer read what `author` writes into `pipes`.
    pub(crate) fn add_source(&mut self, author: Author, pipes: Pipes) {
        let source = Rc::new(Source { author, pipes });
        self.sources.push(Rc::clone(&source));
        self.waiting.push_back(Waiting::Source(source));
        self.announce();
    }

    /// Process `pid` has ended. What it wrote before is still read.
    pub(crate) fn forget_source(&mut self, pid: i32) {
        self.sources.retain(|source| source.author.pid() != pid);
    }

    /// Asks for the last `lines` lines of process `pid`, everything that it wrote before its end included. The answer is
    /// among those of [`LogWriter::take_answers`] later; if the log-writer dies first, it never comes.
    pub(crate) fn tail(&mut self, pid: i32, lines: u32) {
        self.waiting.push_back(Waiting::Question(Question { pid, lines }));
        self.announce();
    }

    /// What [`LogWriter::tail`] has asked for, as far as it has come.
    pub(crate) fn take_answers(&mut self) -> Vec<Tail> {
        let mut answers = Vec::new();
        let mut message = [0; 1 + MESSAGE_BYTES];
        while !self.hung_up {
            match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Ok(length) if length > 0 && Kind::of(message[0]) == Some(Kind::Tail) => {
                    answers.extend(Tail::decode(&message[1..length]));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                _ => self.hung_up = true,
            }
        }
        answers
    }

    /// Gives a command's connection to the log-writer, which answers the request and then writes the lines it wants.
    ///
    /// # Errors
    ///
    /// When no log-writer lives, or it is too busy to listen: the request is not answered then.
    pub(crate) fn hand_over(&mut self, client: BorrowedFd<'_>, wanted: &LogsWanted) -> io::Result<()> {
        let wanted = serde_json::to_vec(wanted)?;
        if wanted.len() > MESSAGE_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.announce();
        Ok(send_message(self.socket.as_fd(), Kind::Viewer, &wanted, &[client])?)
    }

    /// Whether lines go to files, too.
    pub(crate) fn has_files(&self) -> bool {
        self.settings.files.is_some()
    }

    /// Has the files be opened anew, because somebody has moved them away.
    pub(crate) fn reopen(&mut self) {
        self.waiting.push_back(Waiting::Reopen);
        self.announce();
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
        match fork(&self.settings) {
            Ok((socket, pid)) => {
                (self.socket, self.pid, self.restart_at, self.hung_up) = (socket, pid, None, false);
                self.waiting = self.sources.iter().cloned().map(Waiting::Source).collect();
                self.announce();
                self.line("the log-writer had ended and was started again");
            }
            Err(_) => self.restart_at = Some(now + RESTART_AFTER),
        }
    }

    /// The socket to the log-writer, while something waits for room in it.
    pub(crate) fn wants_room(&self) -> Option<BorrowedFd<'_>> {
        (!self.waiting.is_empty() && self.restart_at.is_none()).then(|| self.socket.as_fd())
    }

    /// The socket to the log-writer, which becomes readable when [`LogWriter::take_answers`] has something to take.
    pub(crate) fn wants_to_read(&self) -> Option<BorrowedFd<'_>> {
        (!self.hung_up && self.restart_at.is_none()).then(|| self.socket.as_fd())
    }

    /// Says what the log-writer does not know yet, as far as there is room.
    pub(crate) fn announce(&mut self) {
        while let Some(waiting) = self.waiting.front() {
            match self.send_waiting(waiting) {
                Ok(()) => self.waiting.pop_front(),
                Err(Errno::EINTR) => continue,
                Err(_) => break,
            };
        }
    }

    /// Whether the log-writer knows everything, so that another program may go on with it.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.restart_at.is_none()
    }

    /// Has the log-writer write what is left and waits for it, but no longer than `patience`.
    pub(crate) fn finish(mut self, patience: Duration) {
        self.announce();
        let _ = send_message(self.socket.as_fd(), Kind::End, b"", &[]);
        let mut hangup = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut hangup, patience);
    }

    fn say(&mut self, kind: Kind, text: &[u8]) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.line(&format!("{dropped} lines of the supervisor's own were dropped"));
            if self.dropped > 0 {
                self.dropped = dropped;
            }
        }
        if send_message(self.socket.as_fd(), kind, text, &[]).is_err() {
            self.dropped += 1;
        }
    }

    fn send_waiting(&self, waiting: &Waiting) -> nix::Result<()> {
        let socket = self.socket.as_fd();
        match waiting {
            Waiting::Source(source) => {
                let author = serde_json::to_vec(&source.author).expect("an author is plain data and serialises");
                let pipes = [source.pipes.stdout.as_fd(), source.pipes.stderr.as_fd()];
                send_message(socket, Kind::Source, &author, &pipes)
            }
            Waiting::Question(question) => {
                let question = serde_json::to_vec(question).expect("a question is plain data and serialises");
                send_message(socket, Kind::Tail, &question, &[])
            }
            Waiting::Reopen => send_message(socket, Kind::Reopen, b"", &[]),
        }
    }
}

fn fork(settings: &LogSettings) -> io::Result<(OwnedFd, i32)> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    let supervisor = getpid().as_raw();
    let pid = sys::fork_function(theirs, |socket| writer::run(socket, supervisor, settings))?;
    Ok((ours, pid))
}

#[cfg(test)]
mod tests;
