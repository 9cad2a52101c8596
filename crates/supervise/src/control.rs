//! How commands reach a running supervisor: frames over a unix socket that only its own user and root may use.
//!
//! Blocking, for the command line; the supervisor's side is part of its loop. Messages are JSON, so that a command and a
//! supervisor of different releases understand one another as far as they can: an unknown field is passed over.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::frame::{self, Decoder, FrameError};
use crate::stats;
use crate::status::{Description, Status};

/// How long a supervisor may take to answer what it answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a process may take to end after it has closed everything.
const END_WITHIN: Duration = Duration::from_secs(1);

/// What a supervisor can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answered with [`Reply::Pong`].
    Ping,
    /// Answered with [`Reply::Status`].
    Status,
    /// Answered with [`Reply::Description`] of the worker in this slot.
    Describe {
        /// The slot's number.
        id: u32,
    },
    /// Answered with [`Reply::Done`]; from then on the connection carries log lines as text, no frames, until it ends.
    Logs(LogsWanted),
    /// End: drain, or kill everything at once. This request and those below are answered with any number of
    /// [`Reply::Progress`], then one [`Reply::Done`] or [`Reply::Failed`] when everything has happened.
    Stop {
        /// Kill instead of draining.
        now: bool,
    },
    /// Replace all workers by the next generation, with the configuration as it is now.
    Reload {
        /// The workers' executable from now on; the same file, opened anew, when absent.
        binary: Option<PathBuf>,
    },
    /// Run another number of workers.
    Scale(Scale),
    /// Replace workers by new ones of the same generation.
    Restart {
        /// One slot; all of them when absent.
        id: Option<u32>,
        /// Kill first instead of starting the successor first.
        hard: bool,
    },
    /// Replace the supervisor's own program in place.
    Upgrade,
}

/// How many workers there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scale {
    /// So many.
    To(u32),
    /// So many more, or fewer; never below 1.
    By(i32),
}

/// Which log lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsWanted {
    /// How many of the last lines.
    pub lines: u32,
    /// Then go on with what is written from now on.
    pub follow: bool,
    /// JSON lines in the place of prefixed text.
    pub json: bool,
    /// Only of `w0`, `redis`, `supervisor`; of all when absent.
    pub source: Option<String>,
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
    /// One worker in full.
    Description(Box<Description>),
    /// Something happened on the way; a sentence for people.
    Progress(String),
    /// The request was carried out.
    Done,
    /// The request was not, or not wholly, carried out.
    Failed {
        /// The exit code that says so.
        code: u8,
        /// Why, for people; of several lines when a worker's last words belong to it.
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
        self.send(&Request::Ping)?;
        match self.reply()? {
            Reply::Pong { pid, version } => Ok((pid, version)),
            _ => Err(FrameError::Malformed.into()),
        }
    }

    /// Asks what the supervisor runs.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        self.send(&Request::Status)?;
        match self.reply()? {
            Reply::Status(status) => Ok(*status),
            _ => Err(FrameError::Malformed.into()),
        }
    }

    /// Asks for one worker in full.
    pub fn describe(&mut self, id: u32) -> Result<Result<Description, Refusal>, ClientError> {
        self.send(&Request::Describe { id })?;
        match self.reply()? {
            Reply::Description(description) => Ok(Ok(*description)),
            Reply::Failed { code, message } => Ok(Err(Refusal { code, message })),
            _ => Err(FrameError::Malformed.into()),
        }
    }

    /// Asks for log lines; what is returned reads as text until the last of them, without an end when they are followed.
    pub fn logs(mut self, wanted: &LogsWanted) -> Result<Result<impl Read + AsFd + use<>, Refusal>, ClientError> {
        self.send(&Request::Logs(wanted.clone()))?;
        match self.reply()? {
            Reply::Done => {}
            Reply::Failed { code, message } => return Ok(Err(Refusal { code, message })),
            _ => return Err(FrameError::Malformed.into()),
        }
        self.stream.set_read_timeout(None).map_err(ClientError::Io)?;
        Ok(Ok(Lines { already_read: self.replies.into_rest(), stream: self.stream }))
    }

    /// Asks for something that takes its time and hands out the replies, the last one when it has happened: for a stop,
    /// when the supervisor's process is gone.
    ///
    /// Waits as long as that takes; the supervisor bounds it by its timeouts.
    pub fn command(mut self, request: &Request) -> Result<Replies, ClientError> {
        self.send(request)?;
        self.stream.set_read_timeout(None).map_err(ClientError::Io)?;
        Ok(Replies { client: self, is_stop: matches!(request, Request::Stop { .. }), ended: false })
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

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        self.stream.write_all(&frame::encode_json(request)).map_err(lost)
    }

    fn reply(&mut self) -> Result<Reply, ClientError> {
        loop {
            if let Some(reply) = self.replies.next_json()? {
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

/// Why a supervisor did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The exit code that says so.
    pub code: u8,
    /// Why, a sentence for people.
    pub message: String,
}

/// The text of log lines, the part that came with the last frame first.
#[derive(Debug)]
struct Lines {
    already_read: Vec<u8>,
    stream: UnixStream,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.already_read.is_empty() {
            return self.stream.read(buffer);
        }
        let count = buffer.len().min(self.already_read.len());
        buffer[..count].copy_from_slice(&self.already_read[..count]);
        self.already_read.drain(..count);
        Ok(count)
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The replies to a command, as they come.
#[derive(Debug)]
pub struct Replies {
    client: Client,
    is_stop: bool,
    ended: bool,
}

impl Iterator for Replies {
    type Item = Result<Reply, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let reply = self.client.reply();
        self.ended = !matches!(reply, Ok(Reply::Progress(_)));
        if self.is_stop && matches!(reply, Ok(Reply::Done | Reply::Failed { .. })) {
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
