//! Writes to stdout, on a thread of its own that whoever reads it may hold up for ever.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::line::{Format, Origin};
use super::queue::Queue;

/// Writes for ever, as fast as stdout takes it.
pub(super) fn write_for_ever(queue: &Queue, format: Format, supervisor: &Origin) {
    // Not through `io::stdout`, whose buffer is a copy of the supervisor's as it was at the fork.
    let Ok(mut stdout) = io::stdout().as_fd().try_clone_to_owned().map(File::from) else { return };
    loop {
        let mut work = queue.take();
        if work.dropped_lines > 0 {
            let notice = format!("{} lines were dropped, their reader was too slow", work.dropped_lines);
            format.write(&mut work.text, supervisor, Timestamp::now(), notice.as_bytes());
        }
        // A consumer that is gone, or a full disk, costs the text and nothing else.
        let _ = write_all(&mut stdout, &work.text);
        queue.done();
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
