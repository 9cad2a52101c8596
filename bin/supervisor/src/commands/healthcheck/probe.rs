//! One HTTP request of which nothing but the answer's status matters.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long connecting, sending and the answer may take, each.
const PATIENCE: Duration = Duration::from_secs(2);

/// `HTTP/1.1 200`
const STATUS_LINE_BYTES: usize = 12;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// An HTTP answer with this status.
    Status(u16),
    /// Something else.
    NotHttp,
}

/// Asks for `path` at an address as `status` shows it.
pub(super) fn get(address: &str, path: &str) -> io::Result<Answer> {
    if let Some(socket) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        return exchange(stream, path);
    }
    let address = address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TcpStream::connect_timeout(&reachable(address), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, path)
}

/// An address that listens on everything is reached on this machine's own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<Answer> {
    // In one piece: a simple server may take what it reads first for all there is.
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut status_line = [0; STATUS_LINE_BYTES];
    stream.read_exact(&mut status_line).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, format!("nothing came within {PATIENCE:?}"))
        }
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the connection was closed without an answer"),
        _ => error,
    })?;
    Ok(status(&status_line).map_or(Answer::NotHttp, Answer::Status))
}

fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let (version, code) = line.split_once(' ')?;
    version.starts_with("HTTP/1.").then_some(())?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Answers one connection with `answer`.
    fn serve(mut stream: impl Read + Write, answer: &str) {
        let mut request = [0; 512];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\nhost: "));
        stream.write_all(answer.as_bytes()).unwrap();
    }

    #[test]
    fn the_status_of_the_answer_is_told_and_what_is_not_http_is_recognised() {
        let cases = [
            ("HTTP/1.1 200 OK\r\n\r\n", Answer::Status(200)),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\n", Answer::Status(503)),
            ("SSH-2.0-OpenSSH_9.2\r\n", Answer::NotHttp),
            ("HTTP/1.1 ok, then\r\n", Answer::NotHttp),
        ];
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        for (answer, expected) in cases {
            thread::scope(|scope| {
                scope.spawn(|| serve(listener.accept().unwrap().0, answer));
                assert_eq!(get(&address, "/readyz").unwrap(), expected, "{answer}");
            });
        }
    }

    #[test]
    fn a_unix_socket_is_asked_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| serve(listener.accept().unwrap().0, "HTTP/1.1 204 No Content\r\n\r\n"));
            assert_eq!(get(&format!("unix:{}", path.display()), "/readyz").unwrap(), Answer::Status(204));
        });
    }

    #[test]
    fn a_connection_that_is_closed_at_once_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::scope(|scope| {
            scope.spawn(|| serve(listener.accept().unwrap().0, ""));
            let error = get(&address, "/readyz").unwrap_err();
            assert!(error.to_string().contains("without an answer"), "{error}");
        });
        drop(listener);
        assert_eq!(get(&address, "/readyz").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn what_listens_everywhere_is_reached_here() {
        for (address, expected) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), expected);
        }
    }
}
