//! A running process as the loop sees it: what it says, and what it is told.

mod news;

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

use self::news::News;
use crate::fleet::{Event, Unit};
use crate::frame::{self, Decoder, Dependency, FromWorker, MAX_FRAME_BYTES, Statistics, ToWorker};
use crate::stats::ProcessSampler;

/// The longest notification; systemd's own limit is the same.
const NOTIFICATION_BYTES: usize = 4096;

/// A process that never stops talking must not keep the loop to itself.
const READS_PER_TURN: usize = 4;

/// As many read all that a socket pair holds; whoever still fills it did not die.
const READS_FOR_ALL: usize = 64;

/// The same for its notifications, and for strangers who send some.
const NOTIFICATIONS_PER_TURN: usize = 64;

/// A worker that has left so many bytes unread gets no more answers.
const MOST_UNREAD_BYTES: usize = 8 * MAX_FRAME_BYTES;

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

    /// Answers a question, unless the worker does not read what it has asked for before.
    pub(super) fn answer(&mut self, answer: &ToWorker) {
        if self.channel.as_ref().is_some_and(|channel| channel.outgoing.len() < MOST_UNREAD_BYTES) {
            self.tell(answer);
        }
    }

    /// Takes what the process has said, as much of it as one turn allows.
    pub(super) fn hear(&mut self, heard: &mut Vec<Heard>) {
        self.write();
        self.hear_notifications(heard);
        self.hear_channel(READS_PER_TURN, heard);
    }

    /// Takes everything that a process which has ended had said.
    pub(super) fn hear_all(&mut self, heard: &mut Vec<Heard>) {
        self.hear_notifications(heard);
        self.hear_channel(READS_FOR_ALL, heard);
    }

    fn hear_notifications(&mut self, heard: &mut Vec<Heard>) {
        let (mut spoke, mut is_ready, mut is_stopping, mut beat) = (false, false, false, false);
        for _ in 0..NOTIFICATIONS_PER_TURN {
            let Some(text) = self.next_notification() else { break };
            let says = |word: &[u8]| text.split(|&byte| byte == b'\n').any(|line| line == word);
            spoke |= !text.is_empty();
            is_ready |= says(b"READY=1");
            is_stopping |= says(b"STOPPING=1");
            beat |= says(b"WATCHDOG=1");
        }
        let pid = self.pid;
        if spoke {
            heard.push(Heard::Event(if is_ready { Event::Ready { pid } } else { Event::Spoke { pid } }));
        }
        if is_stopping {
            heard.push(Heard::Event(Event::Stopping { pid }));
        }
        if beat {
            heard.push(Heard::Event(Event::Beat { pid }));
        }
    }

    /// The next datagram. Whoever may not speak for this process has said nothing.
    fn next_notification(&self) -> Option<Vec<u8>> {
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
        Some(if permitted { bytes[..length].to_vec() } else { Vec::new() })
    }

    fn trusts(&self, sender: Uid) -> bool {
        sender.is_root() || sender == Uid::effective() || Some(sender.as_raw()) == self.trusted
    }

    fn hear_channel(&mut self, reads: usize, heard: &mut Vec<Heard>) {
        let Some(channel) = &mut self.channel else { return };
        let open = channel.read(reads);
        let mut news = News::default();
        let error = loop {
            match channel.incoming.next_message() {
                Ok(Some(message)) => news.add(message),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if error.is_some() || !open {
            self.channel = None;
        }
        self.take_note(news, heard);
        heard.extend(
            error.map(|error| Heard::Remark(format!("the worker with pid {} is not understood: {error}", self.pid))),
        );
    }

    fn take_note(&mut self, news: News, heard: &mut Vec<Heard>) {
        let pid = self.pid;
        if news.statistics.is_some() {
            self.statistics = news.statistics;
            heard.push(Heard::Event(Event::Beat { pid }));
        }
        if let Some(dependencies) = news.dependencies {
            self.dependencies = dependencies;
        }
        heard.extend(news.metrics.map(|snapshot| Heard::Metrics { pid, snapshot }));
        heard.extend(news.questions.into_iter().map(|request| Heard::MetricsWanted { pid, request }));
        if news.cut > 0 {
            heard.push(Heard::Remark(format!("the worker with pid {pid} has cut {} requests", news.cut)));
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
    /// Reads what there is, so many times at most; false once the worker has closed its end.
    fn read(&mut self, reads: usize) -> bool {
        for _ in 0..reads {
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
