//! Clients that wait at a listener whose worker is gone are served by another one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixListener, UnixStream};

use edge::{DrainKind, Listener, Report};
use test_support::eventually;

use crate::harness::{Client, PATIENCE, TestServer, patient};

const QUEUED: usize = 50;

/// A listener that nobody accepts from, as a supervisor holds it, and clients in its queue that have asked.
struct Orphaned {
    listener: TcpListener,
    clients: Vec<Client>,
}

impl Orphaned {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut orphaned = Self { listener, clients: Vec::new() };
        orphaned.queue();
        orphaned
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn queue(&mut self) {
        for _ in 0..QUEUED {
            let mut client = Client::connect(self.address());
            client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
            self.clients.push(client);
        }
    }

    fn descriptor(&self) -> Listener {
        Listener::Tcp(self.listener.try_clone().unwrap())
    }

    /// Takes the answers of all who have been queued so far; `closing` is what they must say about the connection.
    fn assert_answered(&mut self, closing: bool) {
        for mut client in self.clients.drain(..) {
            let answer = client.answer();
            assert_eq!((answer.status, answer.closes()), (200, closing));
        }
    }
}

#[test]
fn clients_queued_at_a_listener_without_a_worker_are_answered_each_time_it_is_adopted() {
    let server = TestServer::start(patient());
    let mut orphaned = Orphaned::new();
    for _ in 0..3 {
        server.adoption.adopt(orphaned.descriptor());
        orphaned.assert_answered(false);
        orphaned.queue();
    }
    assert!(server.connect().works(), "the own listener is served as before");
}

#[test]
fn an_adopted_listener_is_left_to_its_owner_once_its_queue_is_empty() {
    let server = TestServer::start(patient());
    let mut orphaned = Orphaned::new();
    server.adoption.adopt(orphaned.descriptor());
    orphaned.assert_answered(false);
    // Of the owner's and the adopted descriptor only the owner's is left: whoever connects now waits for it alone.
    let _later = Client::connect(orphaned.address());
    let (_accepted, _) = orphaned.listener.accept().unwrap();
}

#[test]
fn a_worker_that_drains_for_a_reload_adopts_too() {
    let server = TestServer::start(patient());
    let mut slow = server.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n");
    eventually(PATIENCE, || server.gate.arrived() == 1);
    server.drain(DrainKind::Reload);
    eventually(PATIENCE, || TcpStream::connect(server.address).is_err());
    let mut orphaned = Orphaned::new();
    server.adoption.adopt(orphaned.descriptor());
    orphaned.assert_answered(true);
    server.gate.open();
    assert_eq!(slow.answer().body, b"slow");
    assert_eq!(server.report(), Report { served: 1 + QUEUED as u64, cut: 0 });
}

#[test]
fn a_unix_listener_is_adopted_too() {
    let name = format!("edge-adoption-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let mut client = UnixStream::connect_addr(&address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
    let server = TestServer::start(patient());
    server.adoption.adopt(Listener::Unix(listener));
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[test]
fn a_server_that_has_ended_closes_what_it_is_given() {
    let server = TestServer::start(patient());
    let adoption = server.adoption.clone();
    server.drain(DrainKind::Stop);
    server.report();
    let orphaned = Orphaned::new();
    let address = orphaned.address();
    adoption.adopt(Listener::Tcp(orphaned.listener));
    assert!(TcpStream::connect(address).is_err(), "nobody holds the socket any more");
}
