//! Tests of the fault proxy, against a server that echoes lines.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::*;
use crate::eventually;

const SOON: Duration = Duration::from_secs(5);
/// Long enough for a byte to arrive that should not.
const SILENCE: Duration = Duration::from_millis(60);

/// A server that sends back what it gets, one thread per connection; it ends with the test process.
fn echo() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn client(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends `text` and reads as much back.
fn exchange(mut stream: &TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8(answer).unwrap())
}

fn assert_silent(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "the connection is neither open nor silent");
    stream.set_read_timeout(Some(SOON)).unwrap();
}

fn assert_reset(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn bytes_pass_and_are_counted() {
    let proxy = FaultProxy::start(echo());
    let stream = client(&proxy);
    assert_eq!(exchange(&stream, "hello").unwrap(), "hello");
    assert_eq!(proxy.traffic(), Traffic { connections: 1, open: 1, request_bytes: 5, reply_bytes: 5 });
    drop(stream);
    eventually(SOON, || proxy.traffic().open == 0);
}

#[test]
fn a_megabyte_in_both_directions_arrives_whole() {
    let proxy = FaultProxy::start(echo());
    let stream = client(&proxy);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        (&stream).read_to_end(&mut received).unwrap();
    });
    assert!(sent == received);
}

#[test]
fn a_unix_socket_can_be_behind_it() {
    let redis = crate::Redis::shared();
    let proxy = FaultProxy::start(redis.socket());
    let mut stream = client(&proxy);
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn a_delay_makes_every_round_trip_that_much_longer() {
    let proxy = FaultProxy::start(echo());
    let stream = client(&proxy);
    proxy.set(Mode::Delay(Duration::from_millis(50)));
    for _ in 0..3 {
        let start = std::time::Instant::now();
        assert_eq!(exchange(&stream, "late").unwrap(), "late");
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
}

#[test]
fn what_was_stalled_arrives_when_the_stall_ends() {
    let proxy = FaultProxy::start(echo());
    let stream = client(&proxy);
    assert_eq!(exchange(&stream, "before").unwrap(), "before");
    proxy.set(Mode::Stall);
    (&stream).write_all(b"within").unwrap();
    assert_silent(&stream);
    let new = client(&proxy);
    (&new).write_all(b"within").unwrap();
    assert_silent(&new);
    proxy.set(Mode::Pass);
    for mut stream in [&stream, &new] {
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"within");
    }
}

#[test]
fn dropped_replies_never_come_back_but_requests_arrive() {
    let proxy = FaultProxy::start(echo());
    let stream = client(&proxy);
    proxy.set(Mode::DropReplies);
    (&stream).write_all(b"lost").unwrap();
    eventually(SOON, || proxy.traffic().reply_bytes == 4);
    proxy.set(Mode::Pass);
    (&stream).write_all(b"too").unwrap();
    assert_silent(&stream);
    assert_eq!(exchange(&client(&proxy), "new").unwrap(), "new");
}

#[test]
fn only_the_nth_reply_is_dropped_and_its_connection_reset() {
    let proxy = FaultProxy::start(echo());
    let stream = client(&proxy);
    proxy.drop_reply(3);
    assert_eq!(exchange(&stream, "one").unwrap(), "one");
    assert_eq!(exchange(&stream, "two").unwrap(), "two");
    (&stream).write_all(b"three").unwrap();
    assert_reset(&stream);
    assert_eq!(exchange(&client(&proxy), "four").unwrap(), "four");
}

#[test]
fn a_black_hole_swallows_everything_and_keeps_connections_open() {
    let proxy = FaultProxy::start(echo());
    let old = client(&proxy);
    assert_eq!(exchange(&old, "before").unwrap(), "before");
    proxy.set(Mode::BlackHole);
    let (new, idle) = (client(&proxy), client(&proxy));
    for mut stream in [&old, &new] {
        stream.write_all(b"gone").unwrap();
    }
    eventually(SOON, || proxy.traffic().request_bytes == 14);
    assert_silent(&old);
    assert_silent(&new);
    proxy.set(Mode::Pass);
    for mut stream in [&old, &new] {
        stream.write_all(b"gone").unwrap();
        assert_silent(stream);
    }
    assert_eq!(exchange(&idle, "alive").unwrap(), "alive");
    assert_eq!(exchange(&client(&proxy), "alive").unwrap(), "alive");
}

#[test]
fn a_reset_breaks_old_and_new_connections_until_the_mode_changes() {
    let proxy = FaultProxy::start(echo());
    let old = client(&proxy);
    assert_eq!(exchange(&old, "before").unwrap(), "before");
    proxy.set(Mode::Reset);
    assert_reset(&old);
    assert_reset(&client(&proxy));
    proxy.set(Mode::Pass);
    assert_eq!(exchange(&client(&proxy), "after").unwrap(), "after");
}

#[test]
fn a_cut_breaks_only_what_is_open() {
    let proxy = FaultProxy::start(echo());
    let old = client(&proxy);
    assert_eq!(exchange(&old, "before").unwrap(), "before");
    proxy.cut();
    assert_reset(&old);
    assert_eq!(exchange(&client(&proxy), "after").unwrap(), "after");
    eventually(SOON, || proxy.traffic().connections == 2);
}

#[test]
fn nobody_behind_it_means_a_reset() {
    let proxy = FaultProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, crate::free_port())));
    assert_reset(&client(&proxy));
}
