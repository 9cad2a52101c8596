//! How commands reach a running supervisor: frames over a unix socket that only its own user and root may use.
//!
//! Blocking, for the command line; the supervisor's side is part of its loop.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::frame::{self, Decoder, FrameError};
use crate::stats;
use crate::status::Status;

/// How long a supervisor may take to answer what it answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a process may take to end after it has closed everything.
const END_WITHIN: Duration = Duration::from_secs(1);

/// What a supervisor can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answered with [`Reply::Pong`].
    Ping,
    /// Answered with [`Reply::Status`].
    Status,
    /// End: drain, or kill everything at once. Answered with any number of [`Reply::Progress`], then one
    /// [`Reply::Done`] or [`Reply::Failed`] when nothing runs any more.
    Stop {
        /// Kill instead of draining.
        now: bool,
    },
}

/// What a supervisor answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It lives.
    Pong {
        /// Its process id.
        pid: i32,
        /// Its version.
        version: String,
    },
    /// What it runs.
    Status(Box<Status>),
    /// Something happened on the way; a sentence for people.
    Progress(String),
    /// The request was carried out.
    Done,
    /// The request was not, or not wholly, carried out.
    Failed {
        /// The exit code that says so.
        code: u8,
        /// Why, a sentence for people.
        message: String,
    },
}

/// Why a supervisor could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no supervisor is running at {0}")]
    NotRunning(String),
    /// It belongs to another user.
    #[error("not permitted to use {0}")]
    NotPermitted(String),
    /// It hung up without an answer: another user's, or it ended.
    #[error("the supervisor closed the connection without an answer")]
    Closed,
    /// It did not answer in time.
    #[error("the supervisor does not answer")]
    Silent,
    /// It answers something this build does not understand.
    #[error("the supervisor's answer is not understood: {0}")]
    Protocol(#[from] FrameError),
    /// The connection failed otherwise.
    #[error("cannot talk to the supervisor: {0}")]
    Io(#[source] io::Error),
}

impl ClientError {
    /// The exit code a command reports this with: 3 not running, 77 not permitted, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotRunning(_) => 3,
            Self::NotPermitted(_) => 77,
            Self::Closed | Self::Silent | Self::Protocol(_) | Self::Io(_) => 1,
        }
    }
}

/// A connection to a running supervisor.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    replies: Decoder<Reply>,
}

impl Client {
    /// Connects to the supervisor whose control socket is at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let mut stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(path.display().to_string())
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted(path.display().to_string()),
            _ => ClientError::Io(error),
        })?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(ClientError::Io)?;
        stream.set_write_timeout(Some(ANSWER_WITHIN)).map_err(ClientError::Io)?;
        stream.write_all(&frame::greeting()).map_err(lost)?;
        Ok(Self { stream, replies: Decoder::new() })
    }

    /// Asks whether the supervisor lives; gives its process id and version.
    pub fn ping(&mut self) -> Result<(i32, String), ClientError> {
        self.send(Request::Ping)?;
        match self.reply()? {
            Reply::Pong { pid, version } => Ok((pid, version)),
            _ => Err(FrameError::Malformed.into()),
        }
    }

    /// Asks what the supervisor runs.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        self.send(Request::Status)?;
        match self.reply()? {
            Reply::Status(status) => Ok(*status),
            _ => Err(FrameError::Malformed.into()),
        }
    }

    /// Asks the supervisor to end and hands out its replies, the last one when its process is gone.
    ///
    /// Waits as long as the drain takes; the supervisor bounds it by its `kill_timeout`.
    pub fn stop(mut self, now: bool) -> Result<StopReplies, ClientError> {
        self.send(Request::Stop { now })?;
        self.stream.set_read_timeout(None).map_err(ClientError::Io)?;
        Ok(StopReplies { client: self, ended: false })
    }

    /// The process outlives its last word by a moment; whoever starts the next one must not meet it.
    fn wait_for_end_of_process(&mut self) {
        while self.reply().is_ok() {}
        let Ok(supervisor) = getsockopt(&self.stream, sockopt::PeerCredentials) else { return };
        let deadline = Instant::now() + END_WITHIN;
        // The kernel closes the connection a little before it counts the process as ended.
        while stats::is_running(supervisor.pid()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&mut self, request: Request) -> Result<(), ClientError> {
        self.stream.write_all(&frame::encode(&request)).map_err(lost)
    }

    fn reply(&mut self) -> Result<Reply, ClientError> {
        loop {
            if let Some(reply) = self.replies.next_message()? {
                return Ok(reply);
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self.replies.push(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }
}

/// The replies to a stop, as they come.
#[derive(Debug)]
pub struct StopReplies {
    client: Client,
    ended: bool,
}

impl Iterator for StopReplies {
    type Item = Result<Reply, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let reply = self.client.reply();
        self.ended = !matches!(reply, Ok(Reply::Progress(_)));
        if matches!(reply, Ok(Reply::Done | Reply::Failed { .. })) {
            self.client.wait_for_end_of_process();
        }
        Some(reply)
    }
}

fn lost(error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed,
        _ => ClientError::Io(error),
    }
}
