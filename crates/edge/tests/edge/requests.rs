//! What is refused, what is added, and what pipelining clients get.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use edge::{Config, Listener, TrustedProxies};

use crate::harness::{PATIENCE, TestServer, patient, quick};

#[test]
fn every_answer_has_a_request_id_and_takes_the_clients_when_it_is_sane() {
    let server = TestServer::start(Config { served_by: Some("w7".into()), ..quick() });
    let mut client = server.connect();
    for path in ["/", "/nowhere", "/problem", "/panic", "/never"] {
        let answer = client.get(path);
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "{answer:?}");
        assert_eq!(answer.header("x-served-by"), Some("w7"));
    }
    client.send("GET / HTTP/1.1\r\nhost: test\r\nx-request-id: mine-1\r\n\r\n");
    assert_eq!(client.answer().header("x-request-id"), Some("mine-1"));
    client.send("GET / HTTP/1.1\r\nhost: test\r\nx-request-id: a b\r\n\r\n");
    assert_ne!(client.answer().header("x-request-id"), Some("a b"));
}

#[test]
fn a_problem_names_the_trace_of_the_caller() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    client.send(&format!("GET /problem HTTP/1.1\r\nhost: test\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\n\r\n"));
    let body: serde_json::Value = serde_json::from_slice(&client.answer().body).unwrap();
    assert_eq!(body["trace_id"], trace);
    assert_eq!(body["detail"], "busy");
}

#[test]
fn a_panic_is_a_500_and_neither_the_worker_nor_the_connection_dies() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    client.get("/panic").assert_problem(500);
    assert!(client.works());
    assert_eq!(server.metric("bellwether_http_panics_total"), 1.0);
}

#[test]
fn a_head_that_is_too_large_gets_431() {
    let server = TestServer::start(patient());
    // Whole but above the limit, larger than any read, and without an end.
    for size in [17_000, 100_000] {
        let mut client = server.connect();
        let long = "x".repeat(size);
        client.try_send(format!("GET / HTTP/1.1\r\nhost: test\r\nlong: {long}\r\n\r\n").as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (431, true));
        assert!(answer.body.is_empty());
        client.wait_for_close();
    }
    let mut client = server.connect();
    client.try_send(format!("GET /{}", "x".repeat(20_000)).as_bytes());
    assert_eq!(client.answer().status, 431);

    let mut client = server.connect();
    let long = "x".repeat(16_000);
    client.send(&format!("GET / HTTP/1.1\r\nhost: test\r\nlong: {long}\r\n\r\n"));
    assert_eq!(client.answer().status, 200);
    // The second head is judged by itself.
    client.send(&format!("GET / HTTP/1.1\r\nhost: test\r\nlong: {long}\r\n\r\n"));
    assert_eq!(client.answer().status, 200);
    let long = "x".repeat(17_000);
    client.try_send(format!("GET / HTTP/1.1\r\nhost: test\r\nlong: {long}\r\n\r\n").as_bytes());
    assert_eq!(client.answer().status, 431);
}

#[test]
fn a_request_with_too_many_headers_gets_431() {
    let server = TestServer::start(patient());
    let request = |count: usize| {
        let headers: String = (0..count).map(|index| format!("x-{index}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nhost: test\r\n{headers}\r\n")
    };
    let mut client = server.connect();
    client.send(&request(63));
    assert_eq!(client.answer().status, 200);
    client.send(&request(64));
    client.answer().assert_problem(431);
    client.send(&format!("GET / HTTP/1.1\r\nhost: test\r\n{}\r\n", "x: 1\r\n".repeat(64)));
    client.answer().assert_problem(431);
    // More than the parser has room for.
    client.send(&request(97));
    let answer = client.answer();
    assert!(matches!(answer.status, 400 | 431), "{answer:?}");
    client.wait_for_close();
}

#[test]
fn connect_and_trace_get_405() {
    let server = TestServer::start(patient());
    for (method, target) in [("CONNECT", "example.org:443"), ("TRACE", "/")] {
        let mut client = server.connect();
        client.send(&format!("{method} {target} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let answer = client.answer();
        answer.assert_problem(405);
        assert!(answer.header("allow").is_some());
    }
}

#[test]
fn an_encoded_body_gets_415_without_being_decoded() {
    let server = TestServer::start(patient());
    for coding in ["br", "gzip", "zstd", "deflate", "identity"] {
        let mut client = server.connect();
        client.send(&format!(
            "POST /length HTTP/1.1\r\nhost: test\r\ncontent-encoding: {coding}\r\ncontent-length: 4\r\n\r\nbomb"
        ));
        let answer = client.answer();
        answer.assert_problem(415);
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
        assert!(!answer.closes(), "the body had come in full");
        assert!(client.works());
    }
}

#[test]
fn a_small_body_that_the_handler_does_not_read_costs_no_connection() {
    let limits = edge::Limits { tick: Duration::from_millis(500), ..patient().limits };
    let server = TestServer::start(Config { limits, ..patient() });
    let mut client = server.connect();
    for path in ["/ignore", "/nowhere"] {
        client.send(&format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbody"));
        assert!(!client.answer().closes());
        client.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
        ));
        assert!(!client.answer().closes());
        client.send(&format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbo"));
        std::thread::sleep(Duration::from_millis(1));
        client.send("dy");
        assert!(!client.answer().closes());
    }
    assert!(client.works());
}

#[test]
fn a_body_that_nobody_wants_is_not_waited_for_long() {
    let server = TestServer::start(patient());
    let mut client = server.connect();
    client.send("POST /ignore HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbo");
    let began = Instant::now();
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (200, true));
    assert!(began.elapsed() < Duration::from_secs(2));
    client.wait_for_close();
}

#[test]
fn a_large_body_that_the_handler_does_not_read_ends_the_connection_after_the_answer() {
    let server = TestServer::start(patient());
    let mut client = server.connect();
    client.send("POST /ignore HTTP/1.1\r\nhost: test\r\ncontent-length: 10000000\r\n\r\n");
    client.try_send(&vec![b'x'; 100_000]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (200, true));
    client.wait_for_close();
}

#[test]
fn bodies_of_every_form_arrive_in_full() {
    let server = TestServer::start(patient());
    let mut client = server.connect();
    for size in [0, 1, 8_000, 100_000, 3_000_000] {
        let body = "x".repeat(size);
        client.send(&format!("POST /length HTTP/1.1\r\nhost: test\r\ncontent-length: {size}\r\n\r\n{body}"));
        assert_eq!(client.answer().body, size.to_string().as_bytes());
        client.send("POST /length HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        for piece in body.as_bytes().chunks(1000) {
            client.send(&format!("{:x}\r\n", piece.len()));
            client.try_send(piece);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.answer().body, size.to_string().as_bytes());
    }
    client.send("POST /length HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    client.send("abc");
    assert_eq!(client.answer().body, b"3");
}

#[test]
fn pipelined_requests_are_all_answered_in_order() {
    let server = TestServer::start(patient());
    let mut client = server.connect();
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for index in 0..5_000 {
            let path = if index % 3 == 0 { "/nowhere" } else { "/" };
            let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n", "x".repeat(index % 97));
            writer.write_all(request.as_bytes()).unwrap();
        }
    });
    for index in 0..5_000 {
        let answer = client.answer();
        let expected: (u16, &[u8]) = if index % 3 == 0 { (404, b"") } else { (200, b"hello") };
        assert_eq!((answer.status, &answer.body[..]), expected, "answer {index}");
        assert!(!answer.closes(), "answer {index}");
    }
    sender.join().unwrap();
}

#[test]
fn requests_sent_behind_a_slow_one_are_answered_after_it() {
    let server = TestServer::start(patient());
    let mut client = server.connect();
    let behind = "GET / HTTP/1.1\r\nhost: t\r\n\r\n".repeat(2_000);
    client.send(&format!("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n{behind}"));
    server.gate.open();
    assert_eq!(client.answer().body, b"slow");
    for _ in 0..2_000 {
        assert_eq!(client.answer().body, b"hello");
    }
}

#[test]
fn malformed_requests_get_400_and_the_connection_ends() {
    let server = TestServer::start(patient());
    let corpus = [
        "NONSENSE\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n",
    ];
    for request in corpus {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.answer().status, 400, "{request:?}");
        client.wait_for_close();
    }
}

#[test]
fn the_client_behind_a_trusted_proxy_is_the_one_it_names() {
    let proxies = TrustedProxies::parse(["127.0.0.0/8"], "x-forwarded-for").unwrap();
    let server = TestServer::start(Config { trusted_proxies: proxies, ..patient() });
    let mut client = server.connect();
    assert_eq!(client.get("/client").body, b"127.0.0.1");
    client.send("GET /client HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 6.6.6.6, 203.0.113.9\r\n\r\n");
    assert_eq!(client.answer().body, b"203.0.113.9");

    let server = TestServer::start(patient());
    let mut client = server.connect();
    client.send("GET /client HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 203.0.113.9\r\n\r\n");
    assert_eq!(client.answer().body, b"127.0.0.1");
}

#[test]
fn a_unix_socket_serves_and_its_peer_may_name_the_client() {
    let directory = std::env::temp_dir().join(format!("edge-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("edge.sock");
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = Listener::from_descriptor(listener.into()).unwrap();
    assert!(matches!(listener, Listener::Unix(_)));
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let _server = TestServer::start_on(listener, nowhere, patient());
    for (header, expected) in [("", "127.0.0.1"), ("x-forwarded-for: 203.0.113.9\r\n", "203.0.113.9")] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /client HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{header}\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with(expected), "{text}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
