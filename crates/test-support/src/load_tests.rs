//! Tests of the load client, against servers that do one thing wrong.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::*;

/// A server on a thread per connection. `answer` gets the number of the request within its connection, from 0, and returns the bytes to
/// send; an empty answer closes the connection.
fn serve(answer: impl Fn(usize) -> &'static str + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer_all(stream, answer));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream, answer: impl Fn(usize) -> &'static str) {
    for number in 0.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return;
            }
            head.push(byte[0]);
        }
        let bytes = answer(number);
        if bytes.is_empty() || stream.write_all(bytes.as_bytes()).is_err() || bytes.contains("cut") {
            return;
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn load(address: SocketAddr) -> Load {
    Load { requests: 40, duration: Duration::from_secs(20), clients: 4, ..Load::new(address, "/") }
}

#[test]
fn exactly_as_many_requests_as_asked_for_are_sent_over_one_connection_each() {
    let report = load(serve(|_| OK)).run();
    report.assert_clean();
    assert_eq!((report.succeeded, report.status(200), report.connections), (40, 40, 4));
    assert_eq!(report.latency.count(), 40);
}

#[test]
fn a_connection_per_request_is_a_connection_per_request() {
    let report = Load { connections: Connections::PerRequest, ..load(serve(|_| OK)) }.run();
    report.assert_clean();
    assert_eq!(report.connections, 40);
}

#[test]
fn it_stops_by_itself_when_its_time_is_up() {
    let report = Load { requests: u64::MAX, duration: Duration::from_millis(100), ..load(serve(|_| OK)) }.run();
    report.assert_clean();
    assert!(report.elapsed < Duration::from_secs(5));
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let running = Load { requests: u64::MAX, pause: Duration::from_millis(2), ..load(serve(|_| OK)) }.start();
    running.stop();
    assert!(running.finish().await.elapsed < Duration::from_secs(5));
}

#[test]
fn it_stops_when_nobody_waits_for_it() {
    let proxy = crate::FaultProxy::start(serve(|_| OK));
    let running = Load { requests: u64::MAX, ..load(proxy.address()) }.start();
    crate::eventually(Duration::from_secs(5), || proxy.traffic().open == 4);
    drop(running);
    crate::eventually(Duration::from_secs(5), || proxy.traffic().open == 0);
}

#[test]
fn a_refused_connection_is_a_failure_of_its_own_kind() {
    let report = load(SocketAddr::from((Ipv4Addr::LOCALHOST, crate::free_port()))).run();
    assert_eq!(report.failed(FailureKind::Refused), 40, "{report}");
}

#[test]
fn an_unexpected_status_is_a_failure_and_an_expected_one_is_not() {
    let busy = || serve(|_| "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy");
    let report = load(busy()).run();
    assert_eq!(report.failed(FailureKind::Status(503)), 40, "{report}");
    assert_eq!(report.failures[0].detail, "busy");
    Load { expected: vec![200, 503], ..load(busy()) }.run().assert_clean();
}

#[test]
fn a_reused_connection_closed_without_a_byte_is_retried_once_and_counted_apart() {
    let report = load(serve(|number| if number == 0 { OK } else { "" })).run();
    report.assert_clean();
    assert_eq!(report.reused_closed + report.reused_reset, 36, "{report}");
}

#[test]
fn a_connection_found_closed_before_it_is_used_again_is_no_retry() {
    // It ends after each answer without having said so.
    let report = Load {
        pause: Duration::from_millis(40),
        requests: 20,
        ..load(serve(|_| "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ncut"))
    }
    .run();
    report.assert_clean();
    assert!(report.closed_while_idle > 0, "{report}");
    assert_eq!(report.closed_while_idle + report.reused_closed + report.reused_reset + 4, report.connections);
}

#[test]
fn a_slow_request_lasts_as_long_as_it_is_to_and_counts_in_the_second_in_which_it_began() {
    let slow = Request::new("PUT", "/").json("{}").slowly(Duration::from_millis(1_100));
    let running = Load { mix: vec![slow], clients: 1, requests: 2, ..load(serve(|_| OK)) }.start();
    let report = running.join();
    report.assert_clean();
    assert!(report.latency.quantile(0.0) >= Duration::from_millis(1_050), "{report}");
    let by_second: Vec<u64> = report.latency_by_second.iter().map(crate::Histogram::count).collect();
    assert_eq!(by_second, [1, 1]);
}

#[test]
fn a_fresh_connection_closed_without_a_byte_is_a_failure() {
    let report = load(serve(|_| "")).run();
    assert_eq!(report.failed(FailureKind::Unanswered), 40, "{report}");
}

#[test]
fn a_body_shorter_than_promised_is_a_failure() {
    let report = load(serve(|_| "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncut")).run();
    assert_eq!(report.failed(FailureKind::ShortBody), 40, "{report}");
}

#[test]
fn an_answer_that_is_not_http_is_a_failure() {
    let report = load(serve(|_| "+PONG\r\n\r\n")).run();
    assert_eq!(report.failed(FailureKind::Malformed), 40, "{report}");
}

#[test]
fn an_answer_that_does_not_come_is_a_timeout() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let report = Load { requests: 4, timeout: Duration::from_millis(30), ..load(address) }.run();
    assert_eq!(report.failed(FailureKind::Timeout), 4, "{report}");
}

#[test]
fn chunked_bodies_interim_answers_and_bodies_that_end_with_the_connection_are_read_whole() {
    let check = |answer: &'static str, expected: &str| {
        let response = crate::http::get_blocking(serve(move |_| answer), "/").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, expected));
    };
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\ntrailer: t\r\n\r\n";
    check(chunked, "abc");
    check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", "x");
    check("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the cut", "until the cut");
}
