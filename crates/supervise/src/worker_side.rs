//! The worker's half: what it inherited, and how it tells the supervisor about itself.
//!
//! Needs no runtime: it hands out descriptors, and the worker reads and writes [`crate::frame`]s on them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::child::sys;

/// Descriptors begin here, as systemd has it.
const FIRST_DESCRIPTOR: RawFd = 3;

/// Whether the inheritance was taken over already: a descriptor must not have two owners.
static CLAIMED: AtomicBool = AtomicBool::new(false);

const LOOK_FOR_PARENT_EVERY: Duration = Duration::from_millis(100);

/// What a worker got from its supervisor.
#[derive(Debug)]
pub struct Inherited {
    /// Bound and listening; in the order of the supervisor's `listen`.
    pub listeners: Vec<Listener>,
    /// The socket of the admin listener, shared by all workers.
    pub admin: Option<Listener>,
    /// A stream socket, not blocking, that carries [`crate::frame::ToWorker`] in and
    /// [`crate::frame::FromWorker`] out, each after a [`crate::frame::greeting`].
    pub channel: Option<OwnedFd>,
    /// The slot's number.
    pub worker_id: u32,
    /// The generation this worker belongs to.
    pub generation: u32,
    /// How many workers this supervisor runs.
    pub workers: u32,
    /// How long a drain may take; `None` under another supervisor than ours.
    pub kill_timeout: Option<Duration>,
    notify_socket: Option<OsString>,
}

/// An inherited listening socket.
#[derive(Debug)]
pub struct Listener {
    /// Its name in `LISTEN_FDNAMES`.
    pub name: String,
    /// TCP or unix, which `getsockname` tells. Closed on exec.
    pub descriptor: OwnedFd,
}

/// Why the inheritance cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// A variable has a value it must not have.
    #[error("{variable} is not usable: {value:?}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: OsString,
    },
    /// A descriptor is promised and not open.
    #[error("descriptor {0} is promised and not open")]
    Descriptor(RawFd),
}

impl Inherited {
    /// Takes over what the environment promises, or nothing when no supervisor addressed this very process
    /// (`LISTEN_PID` is another one, or absent). May be called once; a second call would own descriptors twice,
    /// so it finds nothing.
    pub fn from_environment() -> Result<Option<Self>, InheritError> {
        if !claim_inheritance() {
            return Ok(None);
        }
        Self::from_variables(env::var_os)
    }

    /// Says `state` (`READY=1`, `STATUS=…`, `STOPPING=1`) to the supervisor, if there is one that listens.
    pub fn notify(&self, state: &str) -> io::Result<()> {
        let Some(path) = &self.notify_socket else { return Ok(()) };
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
        Ok(())
    }

    /// Makes sure that the process ends at most `kill_timeout` after its supervisor has died, even if it hangs.
    ///
    /// A thread waits for the supervisor's end of the channel to be closed. The kernel sends SIGTERM at that same moment,
    /// so the drain runs meanwhile; what is left when the time is over exits with code 1. Does nothing without a channel.
    pub fn exit_when_orphaned(&self) -> io::Result<()> {
        let (Some(channel), Some(kill_timeout)) = (&self.channel, self.kill_timeout) else { return Ok(()) };
        let channel = channel.try_clone()?;
        let supervisor = parent_id();
        thread::Builder::new().name("orphan-watch".to_owned()).stack_size(64 * 1024).spawn(move || {
            wait_for_hangup(&channel);
            // A living supervisor may give the channel up, too, when it cannot understand this worker.
            while parent_id() == supervisor {
                thread::sleep(LOOK_FOR_PARENT_EVERY);
            }
            thread::sleep(kill_timeout);
            sys::exit_at_once(1);
        })?;
        Ok(())
    }

    fn from_variables(variable: impl Fn(&'static str) -> Option<OsString>) -> Result<Option<Self>, InheritError> {
        let own_pid = std::process::id().to_string();
        if variable("LISTEN_PID").is_none_or(|pid| pid != own_pid.as_str()) {
            return Ok(None);
        }
        let number = |name: &'static str| number(name, variable(name));
        let count = number("LISTEN_FDS")?.unwrap_or(0);
        let names = variable("LISTEN_FDNAMES").map_or_else(String::new, |names| names.to_string_lossy().into_owned());
        let mut names = names.split(':');
        let mut listeners = Vec::new();
        let mut admin = None;
        for offset in 0..count {
            let name = names.next().unwrap_or("unknown").to_owned();
            let listener = Listener { descriptor: claim(FIRST_DESCRIPTOR + offset as RawFd)?, name };
            if listener.name == "admin" {
                admin = Some(listener);
            } else {
                listeners.push(listener);
            }
        }
        let channel = number("BELLWETHER_CHANNEL_FD")?.map(|descriptor| claim(descriptor as RawFd)).transpose()?;
        Ok(Some(Self {
            listeners,
            admin,
            channel,
            worker_id: number("WORKER_ID")?.unwrap_or(0),
            generation: number("WORKER_GENERATION")?.unwrap_or(1),
            workers: number("BELLWETHER_WORKERS")?.unwrap_or(1),
            kill_timeout: number("BELLWETHER_KILL_TIMEOUT_MS")?.map(|ms| Duration::from_millis(ms.into())),
            notify_socket: variable("NOTIFY_SOCKET"),
        }))
    }
}

/// Whether the caller is the first to take over what this process inherited.
pub(crate) fn claim_inheritance() -> bool {
    !CLAIMED.swap(true, Ordering::Relaxed)
}

/// Sets the name that `ps` and `top` show for this process; at most 15 bytes count.
///
/// A worker executed from a descriptor has that descriptor's number for a name until it chooses one.
pub fn set_process_name(name: &str) -> io::Result<()> {
    fs::write("/proc/self/comm", name)
}

/// Reads from the channel without waiting. Zero bytes mean that the supervisor has closed its end.
///
/// A descriptor belongs to the [`ToWorker::Adopt`](crate::frame::ToWorker::Adopt) whose first byte is among those that were read: the kernel hands out
/// at most one per call, together with the first byte of what it was sent with, and nothing of what was sent after that. So
/// whoever keeps descriptors in the order they came has the one of each `Adopt` when the rest of that frame is there.
pub fn receive(channel: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let (length, descriptors) = sys::receive_with_descriptors(channel, buffer)?;
    Ok((length, descriptors.into_iter().next()))
}

/// Makes SIGABRT, the first thing a supervisor does to a worker that hangs, print a backtrace of the main thread to stderr.
///
/// The process ends by that signal within a second, also where no backtrace can be made.
pub fn backtrace_on_abort() -> io::Result<()> {
    sys::backtrace_on_abort()
}

fn number(variable: &'static str, value: Option<OsString>) -> Result<Option<u32>, InheritError> {
    let Some(value) = value else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse::<u32>().ok()).filter(|&number| number <= i32::MAX as u32) {
        Some(number) => Ok(Some(number)),
        None => Err(InheritError::Variable { variable, value }),
    }
}

fn claim(descriptor: RawFd) -> Result<OwnedFd, InheritError> {
    sys::own_inherited(descriptor).map_err(|_| InheritError::Descriptor(descriptor))
}

fn wait_for_hangup(channel: &OwnedFd) {
    // No event is asked for: POLLHUP is reported regardless, and unread frames must not wake this thread.
    let mut watched = [PollFd::new(channel.as_fd(), PollFlags::empty())];
    while let Ok(0) | Err(Errno::EINTR) = poll(&mut watched, PollTimeout::NONE) {}
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{IoSlice, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;
    use crate::frame::{Decoder, DrainKind, ToWorker, encode, greeting};

    fn inherited(variables: &[(&'static str, &str)]) -> Result<Option<Inherited>, InheritError> {
        Inherited::from_variables(|name| {
            variables.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn sockets_meant_for_another_process_are_left_alone() {
        assert!(inherited(&[]).unwrap().is_none());
        assert!(inherited(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]).unwrap().is_none());
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_named() {
        let own_pid = std::process::id().to_string();
        let variables = [("LISTEN_PID", own_pid.as_str()), ("BELLWETHER_CHANNEL_FD", "999999")];
        assert!(matches!(inherited(&variables), Err(InheritError::Descriptor(999_999))));
    }

    #[test]
    fn a_count_that_is_no_number_is_refused_with_its_name() {
        let own_pid = std::process::id().to_string();
        let result = inherited(&[("LISTEN_PID", own_pid.as_str()), ("LISTEN_FDS", "three")]);
        assert!(matches!(result, Err(InheritError::Variable { variable: "LISTEN_FDS", .. })));
    }

    fn tell_to_adopt(channel: &UnixStream, listener: &UnixListener) {
        let frame = encode(&ToWorker::Adopt);
        let descriptors = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let sent = sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(&frame)], &rights, MsgFlags::empty(), None);
        assert_eq!(sent, Ok(frame.len()));
    }

    fn name_of(listener: OwnedFd) -> Vec<u8> {
        UnixListener::from(listener).local_addr().unwrap().as_abstract_name().unwrap().to_vec()
    }

    /// Reads everything in pieces of `length`; tells what each order was, an adoption by the name of its listener.
    fn orders(channel: &UnixStream, length: usize) -> Vec<String> {
        let (mut decoder, mut descriptors) = (Decoder::<ToWorker>::new(), VecDeque::new());
        let (mut buffer, mut orders) = (vec![0; length], Vec::new());
        while let Ok((count @ 1.., descriptor)) = receive(channel.as_fd(), &mut buffer) {
            descriptors.extend(descriptor);
            decoder.push(&buffer[..count]);
            while let Some(order) = decoder.next_message().unwrap() {
                orders.push(match order {
                    ToWorker::Adopt => {
                        let listener = descriptors.pop_front().expect("its descriptor has come");
                        String::from_utf8(name_of(listener)).unwrap()
                    }
                    ToWorker::Metrics { text, .. } => text,
                    ToWorker::Drain { .. } => "drain".to_owned(),
                    ToWorker::Workers { count } => format!("{count} workers"),
                });
            }
        }
        assert!(descriptors.is_empty(), "one descriptor for each adoption");
        orders
    }

    #[test]
    fn every_descriptor_comes_with_its_order_however_the_bytes_are_read() {
        let listeners: Vec<_> = (0..3)
            .map(|index| {
                let name = format!("receive-{}-{index}", std::process::id());
                UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
            })
            .collect();
        let names: Vec<_> = listeners.iter().map(|own| name_of(own.try_clone().unwrap().into())).collect();
        let names: Vec<_> = names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect();
        let expected = [&names[0], "the first", &names[1], &names[2], "the second", "drain"];
        for length in [1, 2, 3, 5, 7, 16, 4096] {
            let (mut supervisor, worker) = UnixStream::pair().unwrap();
            let say = |mut channel: &UnixStream, text: &str| {
                channel.write_all(&encode(&ToWorker::Metrics { request: 1, text: text.to_owned() })).unwrap();
            };
            supervisor.write_all(&greeting()).unwrap();
            tell_to_adopt(&supervisor, &listeners[0]);
            say(&supervisor, "the first");
            tell_to_adopt(&supervisor, &listeners[1]);
            tell_to_adopt(&supervisor, &listeners[2]);
            say(&supervisor, "the second");
            supervisor.write_all(&encode(&ToWorker::Drain { kind: DrainKind::Stop })).unwrap();
            assert_eq!(orders(&worker, length), expected, "read in pieces of {length}");
        }
    }

    #[test]
    fn nothing_to_receive_is_told_at_once() {
        let (supervisor, worker) = UnixStream::pair().unwrap();
        let nothing = receive(worker.as_fd(), &mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(supervisor);
        assert!(matches!(receive(worker.as_fd(), &mut [0; 8]), Ok((0, None))));
    }

    #[test]
    fn a_worker_without_sockets_knows_its_place() {
        let own_pid = std::process::id().to_string();
        let variables = [
            ("LISTEN_PID", own_pid.as_str()),
            ("LISTEN_FDS", "0"),
            ("WORKER_ID", "3"),
            ("WORKER_GENERATION", "7"),
            ("BELLWETHER_WORKERS", "4"),
            ("BELLWETHER_KILL_TIMEOUT_MS", "1500"),
        ];
        let inherited = inherited(&variables).unwrap().unwrap();
        assert_eq!((inherited.worker_id, inherited.generation, inherited.workers), (3, 7, 4));
        assert_eq!(inherited.kill_timeout, Some(Duration::from_millis(1500)));
        assert!(inherited.listeners.is_empty() && inherited.admin.is_none() && inherited.channel.is_none());
        inherited.notify("READY=1").expect("without a socket nothing is said and nothing fails");
    }
}
