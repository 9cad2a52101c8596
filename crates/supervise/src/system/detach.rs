//! Leaving the terminal: one process goes on as the supervisor, the other waits in the terminal until it is ready.

use std::fs::{self, File};
use std::io::{self, Read, Write, stderr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};

use crate::Error;
use crate::child::sys;

/// How often the end of the supervisor is looked for once it has said its last.
const LOOK_FOR_END_EVERY_MS: u16 = 10;

/// What stops the supervisor while somebody waits for it.
const INTERRUPTIONS: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// What the supervisor says when all is well.
const READY: [u8; 1] = [1];

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Detached {
    /// The one that goes on: in a session of its own, without terminal, its words going to who waits in the terminal.
    Supervisor(Caller),
    /// The one in the terminal, when the other has told how the start went.
    Command(Started),
}

/// How a start went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// All is up, and stays up without the terminal.
    Ready {
        /// The supervisor.
        pid: i32,
    },
    /// It ended before; what it had to say has been passed on.
    Ended {
        /// Its exit code.
        code: u8,
    },
    /// It was killed before.
    Killed {
        /// The signal's number.
        signal: i32,
    },
}

/// Whoever waits in the terminal. Dropping it without [`Caller::release`] means that the start has failed.
#[derive(Debug)]
pub struct Caller {
    readiness: OwnedFd,
}

/// Forks this process, which must have one thread only: call it before anything else is started.
///
/// What the supervisor writes to stderr is passed on until it is ready or ends. SIGINT and SIGTERM to the process in the
/// terminal stop the supervisor while it starts. The working directory stays as it is, so that relative paths do.
pub fn detach() -> Result<Detached, Error> {
    let failed = |source: io::Error| Error::System { what: "leave the terminal", source };
    let threads = fs::read_dir("/proc/self/task").map_err(failed)?.count();
    if threads > 1 {
        return Err(failed(io::Error::other(format!("there are {threads} threads already"))));
    }
    let (readiness, their_readiness) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let (words, their_words) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    // An interruption must find somebody who stops the supervisor.
    let before = SigSet::from_iter(INTERRUPTIONS).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let before = before.map_err(|errno| failed(errno.into()))?;
    match sys::fork_in_two().map_err(failed)? {
        None => {
            drop((readiness, words));
            leave_terminal(&their_words).and_then(|()| Ok(before.thread_set_mask()?)).map_err(failed)?;
            Ok(Detached::Supervisor(Caller { readiness: their_readiness }))
        }
        Some(pid) => {
            drop((their_readiness, their_words));
            let waiting = Waiting { pid: Pid::from_raw(pid), readiness: readiness.into(), words: words.into() };
            waiting.outcome(&before).map(Detached::Command).map_err(failed)
        }
    }
}

impl Caller {
    /// Tells who waits that all is well. Nothing can be said to the terminal any more.
    pub fn release(self) {
        // First the words, so that none comes after the caller has gone.
        if let Ok(nothing) = File::options().write(true).open("/dev/null") {
            let _ = dup2_stderr(&nothing);
        }
        // Whoever was not patient enough to wait is not missed.
        let _ = File::from(self.readiness).write_all(&READY);
    }
}

/// The session of its own keeps the terminal's SIGHUP away, which would mean a reload, and its Ctrl-C.
fn leave_terminal(words: &OwnedFd) -> io::Result<()> {
    setsid()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(words)?;
    Ok(())
}

/// The process in the terminal.
struct Waiting {
    pid: Pid,
    readiness: File,
    words: File,
}

impl Waiting {
    /// `mask` says which signals are to be blocked from now on.
    fn outcome(mut self, mask: &SigSet) -> io::Result<Started> {
        for pipe in [&self.readiness, &self.words] {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let (interrupted, signals) = UnixStream::pair()?;
        interrupted.set_nonblocking(true)?;
        for signal in INTERRUPTIONS {
            signal_hook::low_level::pipe::register(signal as i32, signals.try_clone()?)?;
        }
        mask.thread_set_mask()?;
        loop {
            wait_for(&[self.readiness.as_fd(), self.words.as_fd(), interrupted.as_fd()], PollTimeout::NONE);
            self.pass_words_on();
            if (&interrupted).read(&mut [0; 16]).is_ok() {
                // Its end shows in the pipe.
                let _ = kill(self.pid, Signal::SIGTERM);
            }
            match self.readiness.read(&mut [0; 1]) {
                Ok(0) => return self.end(),
                Ok(_) => {
                    self.pass_words_on();
                    return Ok(Started::Ready { pid: self.pid.as_raw() });
                }
                Err(_) => {}
            }
        }
    }

    /// The supervisor has given up and may still be saying why.
    fn end(mut self) -> io::Result<Started> {
        loop {
            self.pass_words_on();
            let started = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, code) => Started::Ended { code: u8::try_from(code).unwrap_or(u8::MAX) },
                WaitStatus::Signaled(_, signal, _) => Started::Killed { signal: signal as i32 },
                _ => {
                    wait_for(&[], PollTimeout::from(LOOK_FOR_END_EVERY_MS));
                    continue;
                }
            };
            self.pass_words_on();
            return Ok(started);
        }
    }

    fn pass_words_on(&mut self) {
        let mut words = Vec::new();
        // Ends at the first word that has not come yet, with what was read before.
        let _ = self.words.read_to_end(&mut words);
        // Without a terminal there is nobody to tell.
        let _ = stderr().write_all(&words);
    }
}

fn wait_for(descriptors: &[BorrowedFd<'_>], patience: PollTimeout) {
    let mut watched: Vec<_> =
        descriptors.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
    // An interruption is as good as an event: everything is looked at anyway.
    let _ = poll(&mut watched, patience);
}
