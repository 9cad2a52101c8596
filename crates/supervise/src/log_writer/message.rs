//! What supervisor and log-writer tell one another: one message each, a byte that says what it is and then the rest.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};

/// The longest text in one message; longer ones are cut into several.
pub(super) const MESSAGE_BYTES: usize = 32 * 1024;

/// The longest line of an answer; it is for people who read what a worker said last.
const ANSWERED_LINE_BYTES: usize = 1000;

/// The first byte of a message says what the rest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A line of the supervisor's own, behind the time in milliseconds.
    Line,
    /// Text that goes to stdout as it is.
    Verbatim,
    /// The author of a new source; its two pipes come along.
    Source,
    /// A [`Question`]; answered with a [`Tail`].
    Tail,
    /// What a command wants to read; its connection comes along.
    Viewer,
    /// The files have been moved away: open them anew.
    Reopen,
    /// Everything was said: write what is left and end.
    End,
}

/// Asks for the last lines of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) pid: i32,
    pub(super) lines: u32,
}

/// The last lines of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) pid: i32,
    /// The newest last; shortened where they are very long.
    pub(crate) lines: Vec<String>,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Line, Self::Verbatim, Self::Source, Self::Tail, Self::Viewer, Self::Reopen, Self::End];

    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Line => b'L',
            Self::Verbatim => b'V',
            Self::Source => b'S',
            Self::Tail => b'T',
            Self::Viewer => b'W',
            Self::Reopen => b'R',
            Self::End => b'E',
        }
    }

    pub(super) fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

impl Tail {
    /// Of lines as they were written, the newest last; the oldest of those that do not fit into a message are left out.
    pub(super) fn of<'a>(pid: i32, lines: impl DoubleEndedIterator<Item = &'a [u8]>) -> Self {
        let mut room = MESSAGE_BYTES - size_of::<i32>();
        let mut kept: Vec<_> = lines
            .rev()
            .map(shortened)
            .take_while(|line| {
                let fits = line.len() < room;
                room = room.saturating_sub(line.len() + 1);
                fits
            })
            .collect();
        kept.reverse();
        Self { pid, lines: kept }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = self.pid.to_le_bytes().to_vec();
        for line in &self.lines {
            message.extend_from_slice(line.as_bytes());
            message.push(b'\n');
        }
        message
    }

    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let (pid, text) = message.split_first_chunk()?;
        let lines = std::str::from_utf8(text).ok()?.split_terminator('\n').map(str::to_owned).collect();
        Some(Self { pid: i32::from_le_bytes(*pid), lines })
    }
}

/// Sends one message with the descriptors that belong to it, without waiting.
pub(super) fn send_message(
    socket: BorrowedFd<'_>,
    kind: Kind,
    text: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> nix::Result<()> {
    let kind = [kind.byte()];
    let parts = [IoSlice::new(&kind), IoSlice::new(text)];
    let descriptors: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &parts, rights, flags, None).map(drop)
}

fn shortened(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    if line.len() <= ANSWERED_LINE_BYTES {
        return line.into_owned();
    }
    format!("{}…", &line[..line.floor_char_boundary(ANSWERED_LINE_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_byte_of_its_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.byte()), Some(kind));
        }
    }

    #[test]
    fn an_answer_reads_back_as_it_was_written() {
        let cases: [&[&str]; 4] = [&[], &[""], &["a", "", "b\r"], &["é", "last"]];
        for lines in cases {
            let tail = Tail::of(7, lines.iter().map(|line| line.as_bytes()));
            assert_eq!(tail.lines, lines);
            assert_eq!(Tail::decode(&tail.encode()), Some(tail));
        }
        assert_eq!(Tail::decode(b"abc"), None);
    }

    #[test]
    fn an_answer_fits_into_a_message_and_keeps_the_newest_lines() {
        let long = "é".repeat(9_000);
        let lines: Vec<_> = (0..200).map(|number| format!("{number} {long}")).collect();
        let tail = Tail::of(7, lines.iter().map(|line| line.as_bytes()));
        assert!(tail.encode().len() <= MESSAGE_BYTES);
        assert!(tail.lines.len() > 20 && tail.lines.last().unwrap().starts_with("199 é"));
        assert!(tail.lines.iter().all(|line| line.ends_with('…')));
    }
}
