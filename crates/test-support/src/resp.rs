//! As much of Redis's protocol as a test needs to look at a server or to do it harm: one command, one reply.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a reply may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends one command over a connection of its own. Arrays become lines, nil becomes an empty string; the inner error is Redis's.
pub(crate) fn command(socket: &Path, arguments: &[&str]) -> io::Result<Result<String, String>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    (&stream).write_all(&encode(arguments))?;
    read_reply(&mut BufReader::new(&stream))
}

fn encode(arguments: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
    }
    bytes
}

fn read_reply(reader: &mut impl BufRead) -> io::Result<Result<String, String>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let Some(kind) = line.chars().next() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let rest = &line[kind.len_utf8()..];
    match kind {
        '+' | ':' => Ok(Ok(rest.to_owned())),
        '-' => Ok(Err(rest.to_owned())),
        '$' => read_bulk(reader, length(rest)?).map(Ok),
        '*' => {
            let mut lines = Vec::new();
            for _ in 0..length(rest)?.unwrap_or(0) {
                lines.push(read_reply(reader)?.unwrap_or_else(|error| error));
            }
            Ok(Ok(lines.join("\n")))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a Redis reply: {line}"))),
    }
}

/// A length of the protocol; `None` stands for nil.
fn length(text: &str) -> io::Result<Option<usize>> {
    let number: i64 = text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(usize::try_from(number).ok())
}

fn read_bulk(reader: &mut impl Read, length: Option<usize>) -> io::Result<String> {
    let Some(length) = length else {
        return Ok(String::new());
    };
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_reply_becomes_text() {
        let check = |bytes: &[u8], expected: Result<&str, &str>| {
            let reply = read_reply(&mut &bytes[..]).unwrap();
            assert_eq!(reply.as_deref().map_err(String::as_str), expected);
        };
        check(b"+OK\r\n", Ok("OK"));
        check(b":42\r\n", Ok("42"));
        check(b"-ERR no\r\n", Err("ERR no"));
        check(b"$3\r\na\rb\r\n", Ok("a\rb"));
        check(b"$-1\r\n", Ok(""));
        check(b"*2\r\n$1\r\na\r\n*1\r\n:2\r\n", Ok("a\n2"));
        check(b"*-1\r\n", Ok(""));
    }

    #[test]
    fn a_connection_that_ends_is_an_error() {
        assert!(read_reply(&mut &b""[..]).is_err());
        assert!(read_reply(&mut &b"$5\r\nab"[..]).is_err());
    }
}
