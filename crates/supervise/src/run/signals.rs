//! Signals as something that can be polled.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, fstat};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// Everything a supervisor takes note of; each replaces the default, which would end it.
const HANDLED: [Signal; 10] = [
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGWINCH,
    Signal::SIGCHLD,
];

/// What to tell somebody whose signal does not do what they hoped for.
pub(super) fn why_ignored(signal: Signal) -> &'static str {
    match signal {
        Signal::SIGUSR1 => "no log files are written",
        _ => "it has no meaning here",
    }
}

/// Whether the terminal that this program was started in has gone. SIGHUP is the kernel's then, and nobody's wish for a reload.
pub(super) fn has_lost_terminal() -> bool {
    let stdin = io::stdin();
    // A pipe hangs up as well, but only devices are terminals.
    let is_device =
        fstat(&stdin).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR);
    let mut watched = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
    let has_hung_up = poll(&mut watched, PollTimeout::ZERO).is_ok() && watched[0].any().unwrap_or(false);
    is_device && has_hung_up
}

/// The signals that have come and were not handled yet.
#[derive(Debug)]
pub(super) struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    /// Handles signals from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let numbers = HANDLED.map(|signal| signal as i32);
        SignalDelivery::with_pipe(read, write, SignalOnly, numbers).map(Self)
    }

    /// What has come since the last call. Several of one kind may count as one.
    pub(super) fn pending(&mut self) -> Vec<Signal> {
        self.0.pending().filter_map(|number| Signal::try_from(number).ok()).collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}
