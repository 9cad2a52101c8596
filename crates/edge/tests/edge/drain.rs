//! How a server goes: nobody loses a request, nobody is waited for in vain.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edge::{Config, DrainKind, Limits, Report};
use test_support::eventually;

use crate::harness::{Client, PATIENCE, TestServer, patient, quick};

#[test]
fn busy_clients_lose_nothing() {
    for kind in [DrainKind::Stop, DrainKind::Reload].into_iter().cycle().take(10) {
        // A client that gets no time on a busy machine is not a silent one.
        let limits = Limits { stop_silence: Duration::from_secs(5), ..patient().limits };
        let server = TestServer::start(Config { limits, ..patient() });
        let clients: Vec<_> = (0..16)
            .map(|_| {
                let mut client = server.connect();
                std::thread::spawn(move || until_told_to_close(&mut client))
            })
            .collect();
        eventually(PATIENCE, || server.metric("bellwether_http_connections") == 16.0);
        server.drain(kind);
        let answered: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(server.report(), Report { served: answered, cut: 0 });
    }
}

/// Asks as fast as it can. Panics when a request is lost.
fn until_told_to_close(client: &mut Client) -> u64 {
    for answered in 1.. {
        let answer = client.get("/");
        assert_eq!(answer.status, 200);
        if answer.closes() {
            client.wait_for_close();
            return answered;
        }
    }
    unreachable!("the server is drained long before");
}

#[test]
fn a_client_that_thinks_is_waited_for() {
    // A reload leaves it its `keep_alive`, however short the silence that a stop allows.
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(5));
    for (kind, stop_silence) in [(DrainKind::Stop, long), (DrainKind::Reload, short)] {
        let limits = Limits { stop_silence, ..patient().limits };
        let server = TestServer::start(Config { limits, keep_alive: long, ..patient() });
        let mut client = server.connect();
        assert!(client.works());
        server.drain(kind);
        std::thread::sleep(Duration::from_millis(300));
        let answer = client.get("/");
        assert_eq!((answer.status, answer.closes()), (200, true), "{kind:?}");
        assert_eq!(server.report(), Report { served: 2, cut: 0 });
    }
}

#[test]
fn a_stop_with_idle_connections_takes_a_moment_and_a_reload_their_keep_alive() {
    let waits =
        [(DrainKind::Stop, Duration::from_secs(3600), 200), (DrainKind::Reload, Duration::from_millis(1500), 1400)];
    for (kind, keep_alive, at_least) in waits {
        let server = TestServer::start(Config { keep_alive, drain_timeout: PATIENCE, ..patient() });
        let mut idle: Vec<_> = (0..20).map(|_| server.connect()).collect();
        assert!(idle.iter_mut().all(Client::works));
        let silent: Vec<_> = (0..20).map(|_| server.connect()).collect();
        let began = Instant::now();
        server.drain(kind);
        assert_eq!(server.report(), Report { served: 20, cut: 0 });
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(at_least), "{kind:?} took {took:?}");
        drop(silent);
    }
}

#[test]
fn a_drain_without_connections_is_immediate() {
    let server = TestServer::start(patient());
    server.drain(DrainKind::Stop);
    assert_eq!(server.report(), Report { served: 0, cut: 0 });
}

#[test]
fn what_is_in_flight_is_finished_and_the_listener_is_gone() {
    for kind in [DrainKind::Stop, DrainKind::Reload] {
        let server = TestServer::start(patient());
        let address = server.address;
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n");
        }
        eventually(PATIENCE, || server.gate.arrived() == 8);
        server.drain(kind);
        eventually(PATIENCE, || TcpStream::connect(address).is_err());
        server.gate.open();
        for client in &mut clients {
            let answer = client.answer();
            assert_eq!((answer.closes(), &answer.body[..]), (true, &b"slow"[..]));
        }
        assert_eq!(server.report(), Report { served: 8, cut: 0 });
    }
}

#[test]
fn a_large_answer_is_finished_although_its_reader_is_slow() {
    let server = TestServer::start(quick());
    let mut client = server.connect();
    for _ in 0..8 {
        client.send("GET /large HTTP/1.1\r\nhost: t\r\n\r\n");
    }
    assert_eq!(client.answer().body.len(), 1 << 20);
    server.drain(DrainKind::Stop);
    let mut answers = 1;
    while let Some(answer) = client.try_answer() {
        assert_eq!(answer.body.len(), 1 << 20);
        answers += 1;
        std::thread::sleep(Duration::from_millis(50));
        if answer.closes() {
            break;
        }
    }
    assert!(answers >= 2);
    client.hang_up();
    assert_eq!(server.report().cut, 0);
}

#[test]
fn connections_that_were_queued_when_the_drain_began_are_served() {
    let server = TestServer::start(quick());
    let mut blocker = server.connect();
    blocker.send("GET /block HTTP/1.1\r\nhost: t\r\n\r\n");
    eventually(PATIENCE, || server.gate.arrived() == 1);
    // The handler keeps the loop from accepting any of these.
    let mut queued: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut queued {
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
    }
    server.drain(DrainKind::Stop);
    server.gate.open();
    for client in &mut queued {
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (200, true));
    }
    assert_eq!(server.report(), Report { served: 51, cut: 0 });
}

#[test]
fn what_does_not_end_in_time_is_cut_and_counted() {
    let server = TestServer::start(Config { drain_timeout: Duration::from_millis(300), ..patient() });
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /never HTTP/1.1\r\nhost: t\r\n\r\n");
    }
    eventually(PATIENCE, || server.metric("http_server_active_requests") == 3.0);
    server.drain(DrainKind::Stop);
    assert_eq!(server.report(), Report { served: 0, cut: 3 });
    assert!(clients.iter_mut().all(|client| client.try_answer().is_none()));
}

#[test]
fn a_detached_write_is_waited_for() {
    let server = TestServer::start(patient());
    let gate = Arc::clone(&server.gate);
    let mut client = server.connect();
    client.send("POST /write HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n");
    eventually(PATIENCE, || gate.arrived() == 1);
    client.hang_up();
    eventually(PATIENCE, || server.metric("bellwether_http_connections") == 0.0);
    server.drain(DrainKind::Stop);
    eventually(PATIENCE, || TcpStream::connect(server.address).is_err());
    gate.open();
    assert_eq!(server.report().cut, 0);
    assert_eq!(gate.written(), 1);
}

#[test]
fn a_detached_write_that_does_not_end_in_time_is_counted() {
    let server = TestServer::start(Config { drain_timeout: Duration::from_millis(50), ..patient() });
    let mut client = server.connect();
    client.send("POST /write HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n");
    eventually(PATIENCE, || server.gate.arrived() == 1);
    server.drain(DrainKind::Stop);
    assert_eq!(server.report().cut, 1);
}

#[test]
fn a_reload_becomes_a_stop_when_told_so() {
    let server = TestServer::start(patient());
    let mut idle = server.connect();
    assert!(idle.works());
    server.drain(DrainKind::Reload);
    static STOPPED: AtomicBool = AtomicBool::new(false);
    let closed = std::thread::spawn(move || {
        idle.wait_for_close();
        STOPPED.load(Ordering::SeqCst)
    });
    std::thread::sleep(Duration::from_millis(500));
    STOPPED.store(true, Ordering::SeqCst);
    server.drain(DrainKind::Stop);
    assert!(closed.join().unwrap(), "a reload leaves idle connections their keep-alive");
    assert_eq!(server.report().cut, 0);
}
