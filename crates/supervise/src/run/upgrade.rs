//! Another program takes this one's place: rehearsed as a child first, then executed in the same process.
//!
//! Workers notice nothing: the process, its descriptors and its children stay what they are.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::unistd::getpid;

use super::commands::code;
use super::launcher::output_pipes;
use super::{DurableState, Hooks, Running, kill_group};
use crate::child::{Executable, HANDOVER_VARIABLE, Launch, REHEARSAL_VARIABLE, sys};
use crate::clients::ClientId;
use crate::control::Reply;
use crate::fleet::Exit;
use crate::handover::{Handover, Prepared};
use crate::log_writer::Author;
use crate::{Error, Outcome};

/// How long a rehearsal may take: it reads a configuration and a state, and that is all.
const REHEARSED_WITHIN: Duration = Duration::from_secs(10);

/// What the log calls the program that is tried.
const SOURCE: &str = "upgrade";

/// The program that is tried.
#[derive(Debug)]
pub(super) struct Rehearsal {
    pub(super) pid: i32,
    client: Option<ClientId>,
    /// `None` once it was killed for being late.
    deadline: Option<Instant>,
}

impl Rehearsal {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// A supervisor that goes on where the program before it stopped.
#[derive(Debug)]
pub struct Resumed(DurableState);

impl Handover {
    /// Takes everything over; `None` if this was the rehearsal, which has succeeded then.
    pub fn resume(self) -> Result<Option<Resumed>, Error> {
        let is_rehearsal = self.is_rehearsal();
        let found: DurableState = self.read()?;
        if is_rehearsal {
            // Dropping it would take away files that are in use.
            std::mem::forget(found);
            return Ok(None);
        }
        Ok(Some(Resumed(found)))
    }
}

impl Resumed {
    /// Goes on as release `version`. As [`crate::Supervisor::run`].
    pub fn run(self, version: &str, hooks: Hooks<'_>) -> Result<Outcome, Error> {
        let Self(mut state) = self;
        let before = std::mem::replace(&mut state.spec.version, version.to_owned());
        let mut running = state.run(hooks)?;
        sys::unblock_signals().map_err(|source| Error::System { what: "let signals come again", source })?;
        running.state.log.line(&format!("supervisor {version} (pid {}) goes on in the place of {before}", getpid()));
        if let Some(client) = running.state.upgrade_for.take() {
            running.state.clients.conclude(client, &Reply::Done);
        }
        Ok(running.live())
    }
}

impl Running<'_> {
    /// Tries the program that lies where this one lay when it was started.
    pub(super) fn begin_upgrade(&mut self, client: Option<ClientId>) {
        if self.rehearsal.is_some() || self.is_reloading() || self.state.fleet.is_stopping() {
            return self.refuse_or_say(client, code::BUSY, "not now: an upgrade, a reload or a stop is under way");
        }
        // Whoever waits for that moment, perhaps in a terminal, is known to this program alone.
        if !self.state.fleet.is_announced() {
            return self.refuse_or_say(client, code::BUSY, "not now: the workers have not all been ready yet");
        }
        match self.rehearse() {
            Ok(pid) => {
                self.say(&format!("{} is tried (pid {pid})", self.executable.display()));
                self.rehearsal = Some(Rehearsal { pid, client, deadline: Some(Instant::now() + REHEARSED_WITHIN) });
            }
            Err(error) => self.refuse_or_say(client, code::FAILED, &format!("the upgrade cannot be tried: {error}")),
        }
    }

    fn rehearse(&mut self) -> io::Result<i32> {
        let state = Prepared::of(&self.state)?;
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        let executable = Executable::by_path(self.executable.as_os_str(), &arguments);
        let executable = executable.map_err(|error| io::Error::other(error.to_string()))?;
        let (ours, theirs) = output_pipes()?;
        let environment = vec![(HANDOVER_VARIABLE.into(), "3".into()), (REHEARSAL_VARIABLE.into(), "1".into())];
        let launch = Launch {
            executable: &executable,
            environment,
            identity: None,
            stdout: theirs.stdout.as_fd(),
            stderr: theirs.stderr.as_fd(),
            inherited: vec![state.memory.as_fd()],
        };
        let pid = launch.start()?;
        self.state.log.add_source(Author::program(SOURCE, pid), ours);
        Ok(pid)
    }

    pub(super) fn end_late_rehearsal(&mut self, now: Instant) {
        let Some(rehearsal) = &mut self.rehearsal else { return };
        if rehearsal.deadline.is_some_and(|deadline| now >= deadline) {
            rehearsal.deadline = None;
            kill_group(rehearsal.pid);
        }
    }

    /// The rehearsal is over; if it went well, the program takes this one's place.
    pub(super) fn end_rehearsal(&mut self, exit: Exit) {
        let Some(Rehearsal { pid, client, .. }) = self.rehearsal.take() else { return };
        self.state.log.forget_source(pid);
        if exit != Exit::Code(0) {
            let message = format!("{} {exit} when it was tried; nothing has changed", self.executable.display());
            return self.refuse_or_say(client, code::FAILED, &message);
        }
        if self.is_reloading() || self.state.fleet.is_stopping() {
            return self.refuse_or_say(client, code::BUSY, "not now: a reload or a stop is under way");
        }
        self.state.log.announce();
        if !self.state.log.is_settled() {
            return self.refuse_or_say(client, code::BUSY, "not now: the log-writer is behind");
        }
        self.state.upgrade_for = client;
        let error = match Prepared::of(&self.state) {
            Ok(state) => state.become_program(&self.executable, || self.signals.pending()),
            Err(error) => error,
        };
        self.state.upgrade_for = None;
        let message = format!("{} cannot be executed: {error}; nothing has changed", self.executable.display());
        self.refuse_or_say(client, code::FAILED, &message);
    }

    /// There will be nothing whose place the program could take.
    pub(super) fn abandon_rehearsal(&mut self) {
        let Some(Rehearsal { pid, client, .. }) = self.rehearsal.take() else { return };
        kill_group(pid);
        self.refuse_or_say(client, code::BUSY, "the supervisor ends");
    }
}
