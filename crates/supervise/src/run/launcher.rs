//! Starts the process of a unit with everything it inherits.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, getsockname, setsockopt, socket, sockopt};
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use super::child::{Channel, Child};
use crate::child::{Executable, Identity, Launch, SETTINGS_VARIABLE, sealed_settings};
use crate::fleet::Unit;
use crate::log_writer::Pipes;
use crate::sockets::{FIRST_GENERATION, Sockets};
use crate::stats::ProcessSampler;
use crate::{Error, Program, Spec};

/// What a process may write while the log-writer is replaced before it has to wait, per stream.
const PIPE_BYTES: i32 = 1 << 20;

/// Descriptors a program inherits begin here.
const FIRST_INHERITED: usize = 3;

/// What is needed to start any process of this supervisor, found and opened once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launcher {
    /// By generation.
    versions: BTreeMap<u32, Version>,
    processes: Vec<(Executable, Vec<(OsString, OsString)>)>,
    /// Whom auxiliary processes run as.
    identity: Option<Identity>,
}

/// What the workers of a generation run, and with what.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Version {
    executable: Executable,
    /// Ours, so it gets the channel and the settings.
    own: bool,
    identity: Option<Identity>,
    #[serde(with = "crate::handover::descriptor")]
    settings: OwnedFd,
    environment: Vec<(OsString, OsString)>,
    kill_timeout: Duration,
    hang_timeout: Duration,
}

impl Version {
    /// Finds the program and the workers' user.
    fn of(spec: &Spec) -> Result<Self, Error> {
        let settings = sealed_settings(&spec.settings)
            .map_err(|source| Error::System { what: "keep the settings in memory", source })?;
        Ok(Self {
            executable: Executable::find(&spec.program)?,
            own: matches!(spec.program, Program::Own { .. }),
            identity: spec.user.as_deref().map(Identity::of).transpose()?,
            settings,
            environment: spec.env.clone(),
            kill_timeout: spec.kill_timeout,
            hang_timeout: spec.hang_timeout,
        })
    }
}

impl Launcher {
    /// Finds all programs and the workers' user.
    pub(super) fn new(spec: &Spec) -> Result<Self, Error> {
        let processes = spec
            .processes
            .iter()
            .map(|process| Ok((Executable::by_path(&process.program, &process.args)?, process.env.clone())));
        let processes = processes.collect::<Result<_, Error>>()?;
        let identity = spec.user.as_deref().map(Identity::of).transpose()?;
        Ok(Self { versions: BTreeMap::from([(FIRST_GENERATION, Version::of(spec)?)]), processes, identity })
    }

    /// Has workers of `generation` run what `spec` says.
    pub(super) fn prepare(&mut self, generation: u32, spec: &Spec) -> Result<(), Error> {
        self.versions.insert(generation, Version::of(spec)?);
        Ok(())
    }

    /// From now on there are workers of `generation` only.
    pub(super) fn keep_only(&mut self, generation: u32) {
        self.versions.retain(|kept, _| *kept == generation);
    }

    /// Program and arguments of the workers of `generation`.
    pub(super) fn command(&self, generation: u32) -> Vec<String> {
        self.versions.get(&generation).map(|version| version.executable.command()).unwrap_or_default()
    }

    /// The file that the workers of `generation` execute.
    pub(super) fn executable(&self, generation: u32) -> String {
        self.versions.get(&generation).map(|version| version.executable.path()).unwrap_or_default()
    }

    /// Starts the process of `unit`, one of `workers` in all; gives the pipes with its output, too.
    pub(super) fn start(
        &self,
        unit: Unit,
        generation: u32,
        workers: u32,
        sockets: &Sockets,
    ) -> io::Result<(Child, Pipes)> {
        let (ours, theirs) = output_pipes()?;
        let (notify, notify_name) = notify_socket()?;
        let mut environment = vec![pair("NOTIFY_SOCKET", notify_name)];
        let (pid, channel, trusted) = match unit {
            Unit::Worker(slot) => {
                let version = self.versions.get(&generation).ok_or_else(|| io::Error::other("its release is gone"))?;
                environment.extend([
                    pair("WORKER_ID", slot.to_string()),
                    pair("WORKER_GENERATION", generation.to_string()),
                    pair("BELLWETHER_WORKERS", workers.to_string()),
                ]);
                let listeners = sockets.of_slot(slot, generation);
                let (pid, channel) = version.start(environment, &theirs, &listeners)?;
                (pid, channel, version.identity.as_ref().map(|identity| identity.uid))
            }
            Unit::Process(index) => {
                let (executable, own_environment) = &self.processes[index as usize];
                environment.extend(own_environment.iter().cloned());
                let (stdout, stderr) = (theirs.stdout.as_fd(), theirs.stderr.as_fd());
                let (identity, inherited) = (self.identity.as_ref(), Vec::new());
                let pid = Launch { executable, environment, identity, stdout, stderr, inherited }.start()?;
                (pid, None, identity.map(|identity| identity.uid))
            }
        };
        let child = Child {
            unit,
            pid,
            generation,
            started: Instant::now(),
            started_at: Timestamp::now(),
            statistics: None,
            dependencies: Vec::new(),
            sampler: ProcessSampler::default(),
            notify,
            trusted,
            channel,
        };
        Ok((child, ours))
    }
}

impl Version {
    fn start(
        &self,
        mut environment: Vec<(OsString, OsString)>,
        output: &Pipes,
        listeners: &[(&str, BorrowedFd<'_>)],
    ) -> io::Result<(i32, Option<Channel>)> {
        let names: Vec<_> = listeners.iter().map(|(name, _)| *name).collect();
        environment.extend(self.environment.iter().cloned());
        environment.extend([pair("LISTEN_FDS", listeners.len().to_string()), pair("LISTEN_FDNAMES", names.join(":"))]);
        let mut inherited: Vec<_> = listeners.iter().map(|(_, listener)| *listener).collect();
        let channel = if self.own { Some(UnixStream::pair()?) } else { None };
        if let Some((ours, theirs)) = &channel {
            ours.set_nonblocking(true)?;
            theirs.set_nonblocking(true)?;
            let next = FIRST_INHERITED + inherited.len();
            environment.extend([
                pair("BELLWETHER_CHANNEL_FD", next.to_string()),
                pair(SETTINGS_VARIABLE, (next + 1).to_string()),
                pair("BELLWETHER_KILL_TIMEOUT_MS", self.kill_timeout.as_millis().to_string()),
            ]);
            inherited.extend([theirs.as_fd(), self.settings.as_fd()]);
        } else {
            environment.push(pair("WATCHDOG_USEC", self.hang_timeout.as_micros().to_string()));
        }
        let launch = Launch {
            executable: &self.executable,
            environment,
            identity: self.identity.as_ref(),
            stdout: output.stdout.as_fd(),
            stderr: output.stderr.as_fd(),
            inherited,
        };
        let pid = launch.start()?;
        Ok((pid, channel.map(|(ours, _)| Channel::new(ours))))
    }
}

/// The pipes for the output of a process: our ends, which never wait, and the process's.
pub(super) fn output_pipes() -> io::Result<(Pipes, Pipes)> {
    let ((stdout, their_stdout), (stderr, their_stderr)) = (output_pipe()?, output_pipe()?);
    Ok((Pipes { stdout, stderr }, Pipes { stdout: their_stdout, stderr: their_stderr }))
}

fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // The kernel grants users without privileges so much in all and no more; a smaller pipe only holds a smaller burst.
    let _ = fcntl(&ours, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    Ok((ours, theirs))
}

/// A socket for one process's notifications, with the name it goes by in `NOTIFY_SOCKET`.
///
/// Its name is chosen by the kernel and in no directory, so a worker of any user reaches it.
fn notify_socket() -> io::Result<(UnixDatagram, OsString)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::PassCred, &true)?;
    bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
    let address = getsockname::<UnixAddr>(socket.as_raw_fd())?;
    let mut name = b"@".to_vec();
    name.extend(address.as_abstract().unwrap_or_default());
    Ok((socket.into(), OsString::from_vec(name)))
}

fn pair(name: &str, value: impl AsRef<OsStr>) -> (OsString, OsString) {
    (name.into(), value.as_ref().to_owned())
}
