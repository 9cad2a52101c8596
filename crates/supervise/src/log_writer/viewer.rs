//! A command that reads the log: it gets the last lines and, if it follows, those that come. One that does not read loses
//! lines, and nobody waits for it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use jiff::Timestamp;
use nix::poll::PollFlags;

use super::line::{Format, Origin};
use super::recent::Recent;
use crate::control::{LogsWanted, Reply};
use crate::frame;

/// How much is kept for a reader that is behind, besides the last lines it has asked for.
const KEPT_BYTES: usize = 256 * 1024;

/// The exit code of a command that may be tried again.
const BUSY: u8 = 75;

/// One such command, handed over by the supervisor after it has asked.
pub(super) struct Viewer {
    stream: UnixStream,
    wanted: LogsWanted,
    format: Format,
    outgoing: Vec<u8>,
    most_outgoing: usize,
    dropped_lines: u64,
    is_gone: bool,
}

impl Viewer {
    /// Answers the request with the lines of `recent` it is for.
    pub(super) fn new(connection: OwnedFd, wanted: LogsWanted, recent: &Recent) -> io::Result<Self> {
        let stream = UnixStream::from(connection);
        stream.set_nonblocking(true)?;
        let format = Format::of(wanted.json);
        let mut outgoing = frame::encode_json(&Reply::Done);
        for written in recent.last(wanted.lines as usize, wanted.source.as_deref()) {
            format.write(&mut outgoing, &written.origin, written.time, &written.line);
        }
        let most_outgoing = outgoing.len() + KEPT_BYTES;
        Ok(Self { stream, wanted, format, outgoing, most_outgoing, dropped_lines: 0, is_gone: false })
    }

    /// What to wait for.
    pub(super) fn watched(&self) -> (BorrowedFd<'_>, PollFlags) {
        let writing = if self.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        (self.stream.as_fd(), PollFlags::POLLIN | writing)
    }

    /// Takes note of a line, if it is wanted and there is room for it.
    pub(super) fn offer(&mut self, origin: &Origin, time: Timestamp, line: &[u8]) {
        let is_wanted = self.wanted.source.as_deref().is_none_or(|name| name == origin.name());
        if !self.wanted.follow || !is_wanted {
            return;
        }
        if self.dropped_lines > 0 || self.outgoing.len() > self.most_outgoing {
            self.dropped_lines += 1;
            return;
        }
        self.format.write(&mut self.outgoing, origin, time, line);
    }

    /// Sends what there is, and what was lost once there is room again.
    pub(super) fn send(&mut self, supervisor: &Origin, time: Timestamp) {
        self.write();
        if self.dropped_lines > 0 && self.outgoing.is_empty() {
            let notice = format!("{} lines were dropped, their reader was too slow", self.dropped_lines);
            self.format.write(&mut self.outgoing, supervisor, time, notice.as_bytes());
            self.dropped_lines = 0;
            self.write();
        }
    }

    /// Whether there is nothing left to do for it.
    pub(super) fn has_ended(&self) -> bool {
        self.is_gone || (!self.wanted.follow && self.outgoing.is_empty())
    }

    /// It has nothing to say but that it is gone; anything else is passed over.
    pub(super) fn listen(&mut self) {
        let mut nothing = [0; 256];
        match self.stream.read(&mut nothing) {
            Ok(0) => self.is_gone = true,
            Ok(_) => {}
            Err(error) => self.is_gone |= !is_for_later(&error),
        }
    }

    fn write(&mut self) {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            match self.stream.write(&self.outgoing[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_gone |= !is_for_later(&error);
                    break;
                }
            }
        }
        self.outgoing.drain(..sent);
    }
}

/// Answers one command too many.
pub(super) fn refuse(connection: OwnedFd) -> io::Result<()> {
    let mut stream = UnixStream::from(connection);
    stream.set_nonblocking(true)?;
    let message = "too many commands read the log already".to_owned();
    stream.write_all(&frame::encode_json(&Reply::Failed { code: BUSY, message }))
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
