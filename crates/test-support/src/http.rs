//! A plain HTTP/1.1 client that tells exactly how an exchange failed. It follows no redirect, retries nothing and pools nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::{sleep, timeout};

use crate::endpoint::{Endpoint, Stream};

/// How long [`send`] and its shorthands wait for a whole answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request. [`Request::get`] and the builder methods suffice for most.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new(), delay: Duration::ZERO }
    }

    /// A GET.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// Adds a header; `host` and `content-length` are there already.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body and its content type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &str) -> Self {
        self.body("application/json", body)
    }

    /// Has [`Connection::exchange`] keep the last byte of the body back for so long: a request that lasts as long as a test likes.
    #[must_use]
    pub fn slowly(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The bytes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body, without any transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, with replacement characters where it is none.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the server wants to close the connection after this answer.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// How an exchange ended without an answer.
#[derive(Debug)]
pub enum ExchangeError {
    /// The connection was closed, or broke, before the first byte of an answer.
    Unanswered(io::Error),
    /// It ended within the answer.
    Short(io::Error),
    /// What came is not HTTP.
    Malformed(String),
}

impl std::fmt::Display for ExchangeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unanswered(error) => write!(formatter, "no byte of an answer: {error}"),
            Self::Short(error) => write!(formatter, "the answer is cut short: {error}"),
            Self::Malformed(text) => write!(formatter, "not an HTTP answer: {text}"),
        }
    }
}

impl std::error::Error for ExchangeError {}

/// One connection, for several exchanges after each other.
pub struct Connection {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        Ok(Self { stream: endpoint.connect().await?, received: Vec::new() })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// How it failed; the connection is of no further use then.
    pub async fn exchange(&mut self, request: &Request) -> Result<Response, ExchangeError> {
        self.send(request).await.map_err(ExchangeError::Unanswered)?;
        self.read_response(request.method == "HEAD").await
    }

    /// Whether the server is known to have closed the connection, or to have broken it: what a pool looks at before it uses one again.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let read = Pin::new(&mut self.stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        self.received.extend_from_slice(buffer.filled());
        match read {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => buffer.filled().is_empty(),
            Poll::Ready(Err(_)) => true,
        }
    }

    /// Sends bytes as they are: for heads that are broken, slow or pipelined.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads the next answer; `without_body` after HEAD.
    ///
    /// # Errors
    /// How it failed.
    pub async fn read_response(&mut self, without_body: bool) -> Result<Response, ExchangeError> {
        let mut response = self.read_head().await?;
        // Interim answers, such as 100, precede the one that counts.
        while (100..200).contains(&response.status) && response.status != 101 {
            response = self.read_head().await?;
        }
        let bodiless = without_body || matches!(response.status, 101 | 204 | 304);
        if !bodiless {
            response.body = self.read_body(&response).await?;
        }
        Ok(response)
    }

    /// Reads until the server closes; what came until then, also when it ended with a reset.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while matches!(self.fill().await, Ok(read) if read > 0) {}
        std::mem::take(&mut self.received)
    }

    async fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut bytes = request.to_bytes();
        if !request.delay.is_zero() {
            let last = bytes.split_off(bytes.len() - 1);
            self.write(&bytes).await?;
            sleep(request.delay).await;
            bytes = last;
        }
        self.write(&bytes).await
    }

    async fn read_head(&mut self) -> Result<Response, ExchangeError> {
        let end = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break end;
            }
            let empty = self.received.is_empty();
            let wrap = |error| {
                if empty { ExchangeError::Unanswered(error) } else { ExchangeError::Short(error) }
            };
            if self.fill().await.map_err(wrap)? == 0 {
                return Err(wrap(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        let head: Vec<u8> = self.received.drain(..end + 4).collect();
        parse_head(&head[..end])
    }

    async fn read_body(&mut self, head: &Response) -> Result<Vec<u8>, ExchangeError> {
        if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks().await;
        }
        if let Some(length) = head.header("content-length") {
            let length = length.parse().map_err(|_| ExchangeError::Malformed(format!("content-length {length}")))?;
            return self.take(length).await;
        }
        while self.fill().await.map_err(ExchangeError::Short)? > 0 {}
        Ok(std::mem::take(&mut self.received))
    }

    async fn read_chunks(&mut self) -> Result<Vec<u8>, ExchangeError> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16)
                .map_err(|_| ExchangeError::Malformed(format!("chunk length {digits:?}")))?;
            if length == 0 {
                // Trailers, then an empty line.
                while !self.read_line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(length).await?);
            self.read_line().await?;
        }
    }

    async fn read_line(&mut self) -> Result<String, ExchangeError> {
        loop {
            if let Some(end) = find(&self.received, b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill_or_short().await?;
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, ExchangeError> {
        while self.received.len() < length {
            self.fill_or_short().await?;
        }
        Ok(self.received.drain(..length).collect())
    }

    async fn fill_or_short(&mut self) -> Result<(), ExchangeError> {
        match self.fill().await {
            Ok(0) => Err(ExchangeError::Short(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(ExchangeError::Short(error)),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.received.reserve(8 * 1024);
        self.stream.read_buf(&mut self.received).await
    }
}

/// Sends one request over a connection of its own.
///
/// # Errors
/// A sentence about what failed, also when there is no whole answer within 30 s.
pub async fn send(endpoint: impl Into<Endpoint>, request: &Request) -> Result<Response, String> {
    let endpoint = endpoint.into();
    let exchange = async {
        let mut connection = Connection::open(&endpoint).await.map_err(|error| format!("{endpoint}: {error}"))?;
        connection.exchange(request).await.map_err(|error| format!("{endpoint}: {error}"))
    };
    timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(format!("{endpoint}: no answer within {PATIENCE:?}")))
}

/// GETs a path over a connection of its own.
///
/// # Errors
/// As [`send`].
pub async fn get(endpoint: impl Into<Endpoint>, path: &str) -> Result<Response, String> {
    send(endpoint, &Request::get(path).header("connection", "close")).await
}

/// [`send`] for tests without a runtime.
///
/// # Errors
/// As [`send`].
///
/// # Panics
/// When called within a runtime.
pub fn send_blocking(endpoint: impl Into<Endpoint>, request: &Request) -> Result<Response, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(send(endpoint, request))
}

/// [`get`] for tests without a runtime.
///
/// # Errors
/// As [`send`].
///
/// # Panics
/// When called within a runtime.
pub fn get_blocking(endpoint: impl Into<Endpoint>, path: &str) -> Result<Response, String> {
    send_blocking(endpoint, &Request::get(path).header("connection", "close"))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn parse_head(head: &[u8]) -> Result<Response, ExchangeError> {
    let text = String::from_utf8_lossy(head);
    let malformed = || ExchangeError::Malformed(text.chars().take(200).collect());
    let mut lines = text.split("\r\n");
    let status_line = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).ok_or_else(malformed)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Response { status, headers, body: Vec::new() })
}
