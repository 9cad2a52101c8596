//! A running process as the loop sees it: what it says, and what it is told.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

use jiff::Timestamp;
use nix::cmsg_space;
use nix::poll::PollFlags;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, sendmsg};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use telemetry::Snapshot;

use crate::fleet::{Event, Unit};
use crate::frame::{self, Decoder, Dependency, FromWorker, Statistics, ToWorker};
use crate::stats::ProcessSampler;

/// The longest notification; systemd's own limit is the same.
const NOTIFICATION_BYTES: usize = 4096;

/// A process that never stops talking must not keep the loop to itself.
const READS_PER_TURN: usize = 64;

/// What a process said.
#[derive(Debug)]
pub(super) enum Heard {
    /// Something the fleet decides about.
    Event(Event),
    /// Something for people.
    Remark(String),
    /// All metrics of a worker.
    Metrics { pid: i32, snapshot: Snapshot },
    /// A worker was asked for the metrics of all.
    MetricsWanted { pid: i32, request: u64 },
}

/// One process of this supervisor, from its fork until it is reaped.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Child {
    pub(super) unit: Unit,
    pub(super) pid: i32,
    pub(super) generation: u32,
    #[serde(with = "crate::handover::moment")]
    pub(super) started: Instant,
    pub(super) started_at: Timestamp,
    /// The last it sent.
    pub(super) statistics: Option<Statistics>,
    /// What it depends on, as it last said.
    pub(super) dependencies: Vec<Dependency>,
    pub(super) sampler: ProcessSampler,
    #[serde(with = "crate::handover::descriptor")]
    pub(super) notify: UnixDatagram,
    /// May speak for the process, besides root and the supervisor's own user.
    pub(super) trusted: Option<u32>,
    pub(super) channel: Option<Channel>,
}

/// The supervisor's end of the socket pair between it and one of our own workers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Channel {
    #[serde(with = "crate::handover::descriptor")]
    stream: UnixStream,
    incoming: Decoder<FromWorker>,
    outgoing: Vec<u8>,
}

impl Channel {
    /// Greets the worker as soon as there is room.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, incoming: Decoder::new(), outgoing: frame::greeting() }
    }
}

impl Child {
    /// What to wait for.
    pub(super) fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let channel = self.channel.iter().map(|channel| {
            let writing = if channel.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            (channel.stream.as_fd(), PollFlags::POLLIN | writing)
        });
        channel.chain([(self.notify.as_fd(), PollFlags::POLLIN)])
    }

    /// Tells one of our own workers something; others do not understand more than signals.
    pub(super) fn tell(&mut self, message: &ToWorker) {
        if let Some(channel) = &mut self.channel {
            channel.outgoing.extend(frame::encode(message));
        }
        self.write();
    }

    /// Whether it understands more than signals.
    pub(super) fn is_own(&self) -> bool {
        self.channel.is_some()
    }

    /// Hands one of our own workers a listener to empty; false if it cannot take one at this moment.
    pub(super) fn hand_over(&mut self, listener: BorrowedFd<'_>) -> bool {
        self.write();
        let Some(channel) = self.channel.as_mut().filter(|channel| channel.outgoing.is_empty()) else { return false };
        let mut message = frame::encode(&ToWorker::Adopt);
        let parts = [IoSlice::new(&message)];
        let rights = [listener.as_raw_fd()];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent =
            sendmsg::<()>(channel.stream.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&rights)], flags, None);
        // The descriptor goes with the first byte; what did not fit follows.
        sent.is_ok_and(|count| {
            channel.outgoing = message.split_off(count);
            true
        })
    }

    /// Takes everything the process has said so far.
    pub(super) fn hear(&mut self, heard: &mut Vec<Heard>) {
        self.write();
        self.hear_notifications(heard);
        self.hear_channel(heard);
    }

    fn hear_notifications(&mut self, heard: &mut Vec<Heard>) {
        for _ in 0..READS_PER_TURN {
            let Some(text) = self.next_notification() else { return };
            let pid = self.pid;
            let says = |word: &[u8]| text.split(|&byte| byte == b'\n').any(|line| line == word);
            heard.push(Heard::Event(if says(b"READY=1") { Event::Ready { pid } } else { Event::Spoke { pid } }));
            if says(b"WATCHDOG=1") {
                heard.push(Heard::Event(Event::Beat { pid }));
            }
        }
    }

    /// The next datagram from somebody who may speak for this process. Others are passed over.
    fn next_notification(&self) -> Option<Vec<u8>> {
        loop {
            let mut bytes = [0; NOTIFICATION_BYTES];
            let mut space = cmsg_space!(UnixCredentials);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(self.notify.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
            let length = message.bytes;
            let permitted = message.cmsgs().is_ok_and(|mut controls| {
                controls.any(|control| match control {
                    ControlMessageOwned::ScmCredentials(sender) => self.trusts(Uid::from_raw(sender.uid())),
                    _ => false,
                })
            });
            if permitted {
                return Some(bytes[..length].to_vec());
            }
        }
    }

    fn trusts(&self, sender: Uid) -> bool {
        sender.is_root() || sender == Uid::effective() || Some(sender.as_raw()) == self.trusted
    }

    fn hear_channel(&mut self, heard: &mut Vec<Heard>) {
        let Some(channel) = &mut self.channel else { return };
        let open = channel.read();
        loop {
            match channel.incoming.next_message() {
                Ok(Some(FromWorker::Statistics(statistics))) => {
                    self.statistics = Some(statistics);
                    heard.push(Heard::Event(Event::Beat { pid: self.pid }));
                }
                Ok(Some(FromWorker::Metrics(snapshot))) => heard.push(Heard::Metrics { pid: self.pid, snapshot }),
                Ok(Some(FromWorker::Dependencies(dependencies))) => self.dependencies = dependencies,
                Ok(Some(FromWorker::MetricsWanted { request })) => {
                    heard.push(Heard::MetricsWanted { pid: self.pid, request });
                }
                Ok(Some(FromWorker::Drained { cut: 0 })) => {}
                Ok(Some(FromWorker::Drained { cut })) => {
                    heard.push(Heard::Remark(format!("the worker with pid {} has cut {cut} requests", self.pid)));
                }
                Ok(None) => break,
                Err(error) => {
                    heard.push(Heard::Remark(format!("the worker with pid {} is not understood: {error}", self.pid)));
                    self.channel = None;
                    return;
                }
            }
        }
        if !open {
            self.channel = None;
        }
    }

    fn write(&mut self) {
        let Some(channel) = &mut self.channel else { return };
        while !channel.outgoing.is_empty() {
            match channel.stream.write(&channel.outgoing) {
                Ok(count) => drop(channel.outgoing.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // What cannot be written now waits for room, and what can never be is noticed when reading.
                Err(_) => return,
            }
        }
    }
}

impl Channel {
    /// Reads what there is; false once the worker has closed its end.
    fn read(&mut self) -> bool {
        for _ in 0..READS_PER_TURN {
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(count) => self.incoming.push(&bytes[..count]),
                Err(error) => match error.kind() {
                    std::io::ErrorKind::Interrupted => {}
                    kind => return kind == std::io::ErrorKind::WouldBlock,
                },
            }
        }
        true
    }
}
