//! One stream of one process, cut into lines.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use jiff::Timestamp;

use super::line::Origin;
use super::outputs::Outputs;

/// Longer lines are split.
const LINE_BYTES: usize = 16 * 1024;

/// The most bytes that go on with a character in UTF-8.
const CONTINUATION_BYTES: usize = 3;

/// So many full reads are more than a pipe holds: whoever still fills it did not die.
const READS_FOR_ALL: usize = 32;

/// A pipe with the part of a line that was read so far.
pub(super) struct Source {
    pub(super) origin: Rc<Origin>,
    pipe: File,
    line: Vec<u8>,
}

/// What reading has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// As much as was asked for; there may be more.
    Full,
    /// Everything there was.
    Empty,
    /// Everything there will ever be.
    Ended,
}

impl Source {
    pub(super) fn new(origin: Origin, pipe: OwnedFd) -> Self {
        Self { origin: Rc::new(origin), pipe: pipe.into(), line: Vec::new() }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Reads once, by means of `buffer`.
    pub(super) fn read(&mut self, buffer: &mut [u8], time: Timestamp, outputs: &mut Outputs) -> Progress {
        match self.pipe.read(buffer) {
            Ok(0) => {
                self.end_line(time, outputs);
                Progress::Ended
            }
            Ok(count) => {
                self.take(&buffer[..count], time, outputs);
                if count == buffer.len() { Progress::Full } else { Progress::Empty }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Progress::Empty,
                io::ErrorKind::Interrupted => Progress::Full,
                _ => {
                    self.end_line(time, outputs);
                    Progress::Ended
                }
            },
        }
    }

    /// Reads everything that a process which has ended had written, also when others still hold its pipe.
    pub(super) fn read_all(&mut self, buffer: &mut [u8], time: Timestamp, outputs: &mut Outputs) {
        for _ in 0..READS_FOR_ALL {
            if self.read(buffer, time, outputs) != Progress::Full {
                break;
            }
        }
        self.end_line(time, outputs);
    }

    fn take(&mut self, bytes: &[u8], time: Timestamp, outputs: &mut Outputs) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            if self.line.is_empty() && end <= LINE_BYTES {
                outputs.line(&self.origin, time, &rest[..end]);
            } else {
                self.add(&rest[..end], time, outputs);
                self.end_line(time, outputs);
            }
            rest = &rest[end + 1..];
        }
        self.add(rest, time, outputs);
    }

    /// Adds to the line that has no end yet.
    fn add(&mut self, bytes: &[u8], time: Timestamp, outputs: &mut Outputs) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE_BYTES - self.line.len();
            let (now, later) = rest.split_at(rest.len().min(room));
            self.line.extend_from_slice(now);
            rest = later;
            if let Some(&next) = rest.first() {
                let end = end_of_characters(&self.line, next);
                outputs.line(&self.origin, time, &self.line[..end]);
                self.line.drain(..end);
            }
        }
    }

    fn end_line(&mut self, time: Timestamp, outputs: &mut Outputs) {
        if !self.line.is_empty() {
            outputs.line(&self.origin, time, &self.line);
            self.line.clear();
        }
    }
}

/// Where `line`, which goes on with `next`, can be cut without cutting a character.
fn end_of_characters(line: &[u8], next: u8) -> usize {
    let is_first = |byte: u8| byte & 0b1100_0000 != 0b1000_0000;
    if is_first(next) {
        return line.len();
    }
    let start = line.iter().rev().take(CONTINUATION_BYTES).position(|&byte| is_first(byte));
    start.map_or(line.len(), |back| line.len() - back - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_not_cut_within_a_character() {
        let cases: [(&[u8], u8, usize); 6] = [
            (b"abc", b'd', 3),
            ("abé".as_bytes(), b'd', 4),
            (b"ab\xc3", 0xa9, 2),
            (b"a\xe2\x82", 0xac, 1),
            (b"a\xf0\x9f\x98", 0x80, 1),
            (b"ab\x80\x80\x80\x80", 0x80, 6),
        ];
        for (line, next, expected) in cases {
            assert_eq!(end_of_characters(line, next), expected, "{line:x?}");
        }
    }
}
