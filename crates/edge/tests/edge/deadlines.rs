//! What a client does not send, or take, in time.

use std::time::{Duration, Instant};

use edge::{Config, Limits};
use test_support::eventually;

use crate::harness::{Client, PATIENCE, TestServer, patient, quick};

/// What a busy machine adds to a deadline.
const SLACK: Duration = Duration::from_secs(15);

/// Sends `piece` every 50 ms until the other side has had enough, and tells how long it bore it.
fn drip(client: &mut Client, piece: &str) -> Duration {
    let began = Instant::now();
    client.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        assert!(began.elapsed() < PATIENCE, "the connection is still open");
        let gone = match std::io::Read::read(&mut client.stream, &mut [0; 1024]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        if gone || !client.try_send(piece.as_bytes()) {
            return began.elapsed();
        }
    }
}

#[test]
fn a_head_that_stops_half_way_gets_408_after_its_deadline() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\nhost: te");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (408, true));
    assert!(began.elapsed() >= Duration::from_millis(300));
    client.wait_for_close();
    assert_eq!(server.closed("head_timeout"), 1.0);
}

#[test]
fn a_head_that_drips_is_cut_although_each_byte_is_in_time() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: test\r\nx: ");
    let lasted = drip(&mut client, "x");
    assert!(lasted >= Duration::from_millis(300) && lasted < SLACK, "{lasted:?}");
}

#[test]
fn the_second_head_of_a_connection_has_the_same_deadline() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.answer().status, 408);
    assert!(client.wait_for_close() < SLACK);

    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client.send("GET / HTTP/1.1\r\nhost: test\r\nx: ");
    assert!(drip(&mut client, "x") < SLACK);
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_an_answer() {
    let server = TestServer::start(quick());
    let mut fresh = server.connect();
    assert!(fresh.wait_for_close() < SLACK);
    assert!(fresh.try_answer().is_none());

    let mut kept = server.connect();
    kept.get("/");
    let waited = kept.wait_for_close();
    assert!(waited >= Duration::from_millis(350) && waited < SLACK, "{waited:?}");
    assert!(kept.try_answer().is_none());
}

#[test]
fn each_request_begins_the_keep_alive_anew() {
    let server = TestServer::start(Config { keep_alive: Duration::from_secs(2), ..quick() });
    let mut client = server.connect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        assert_eq!(client.get("/").status, 200);
        std::thread::sleep(Duration::from_millis(250));
    }
}

#[test]
fn a_body_that_stops_gets_408_and_the_connection_ends() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    client.send("POST /length HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nabc");
    let answer = client.answer();
    answer.assert_problem(408);
    assert!(answer.closes());
    client.wait_for_close();
    assert_eq!(server.closed("body_timeout"), 1.0);
}

#[test]
fn a_body_that_drips_in_any_form_is_cut() {
    let server = TestServer::start(quick());
    let head = "POST /length HTTP/1.1\r\nhost: test\r\n";
    let forms = [
        ("content-length: 100000\r\n\r\n", "x"),
        ("transfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
        ("transfer-encoding: chunked\r\n\r\n5;extension=", "x"),
        ("transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", "trailer: x\r\n"),
        ("expect: 100-continue\r\ncontent-length: 100000\r\n\r\n", "x"),
    ];
    for (begin, piece) in forms {
        let mut client = server.connect();
        client.send(&format!("{head}{begin}"));
        let lasted = drip(&mut client, piece);
        assert!(lasted < SLACK, "{begin:?} was borne for {lasted:?}");
    }
}

#[test]
fn a_route_may_give_its_body_more_time() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    client.send("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 20\r\n\r\n");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        client.send("x");
    }
    assert_eq!(client.answer().body, b"20");
}

#[test]
fn a_handler_that_takes_too_long_is_answered_for_with_504_and_the_connection_lives() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    let began = Instant::now();
    client.get("/never").assert_problem(504);
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert!(client.works());
}

#[test]
fn the_write_behind_a_504_goes_on() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    client.send("POST /write HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
    client.answer().assert_problem(504);
    assert_eq!(server.gate.written(), 0);
    server.gate.open();
    eventually(PATIENCE, || server.gate.written() == 1);
}

#[test]
fn the_write_of_a_client_that_went_away_goes_on() {
    let server = TestServer::start(patient());
    let mut client = server.connect();
    client.send("POST /write HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
    eventually(PATIENCE, || server.metric("http_server_active_requests") == 1.0);
    client.hang_up();
    eventually(PATIENCE, || server.metric("http_server_active_requests") == 0.0);
    assert_eq!(server.gate.written(), 0);
    server.gate.open();
    eventually(PATIENCE, || server.gate.written() == 1);
}

#[test]
fn a_reader_that_never_reads_is_cut_off() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    // More than the kernel's buffers take.
    for _ in 0..32 {
        client.send("GET /large HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    eventually(PATIENCE, || server.closed("write_stalled") == 1.0);
    eventually(PATIENCE, || server.metric("bellwether_http_connections") == 0.0);
}

#[test]
fn a_reader_that_reads_slowly_gets_everything() {
    let limits = Limits { write_stall: Duration::from_millis(1500), ..quick().limits };
    let server = TestServer::start(Config { limits, ..quick() });
    let mut client = server.connect();
    for _ in 0..16 {
        client.send("GET /large HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    for _ in 0..16 {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(client.answer().body.len(), 1 << 20);
    }
}

#[test]
fn slow_clients_do_not_slow_others_down() {
    let server = TestServer::start(patient());
    let _slow: Vec<_> = (0..500)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\n");
            client
        })
        .collect();
    let mut client = server.connect();
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
}
