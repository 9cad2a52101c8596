//! The supervisor's control socket, as far as a test needs it: one connection, a question, an answer. Starting its command for each look
//! would cost more than what is looked at.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The version of the protocol, the first frame in each direction.
const VERSION: [u8; 2] = 1_u16.to_le_bytes();

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a running supervisor.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
}

impl Control {
    /// Connects to the supervisor whose control socket is at `path`.
    ///
    /// # Errors
    /// The operating system's, and when whoever listens there does not greet.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut control = Self { stream };
        control.write(&VERSION)?;
        control.read()?;
        Ok(control)
    }

    /// Sends one request as JSON, `"Status"` for example, and returns the answer, JSON too.
    ///
    /// # Errors
    /// The operating system's, also when there is no answer within 5 s.
    pub fn ask(&mut self, request: &str) -> io::Result<String> {
        self.write(request.as_bytes())?;
        String::from_utf8(self.read()?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.stream.write_all(&[&length.to_le_bytes(), payload].concat())
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut payload = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }
}
