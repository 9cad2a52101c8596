//! More clients than there is room for.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use edge::{Config, Limits, TrustedProxies};
use test_support::eventually;

use crate::harness::{Client, PATIENCE, TestServer, patient};

#[test]
fn the_connection_that_has_waited_longest_makes_room() {
    let server = TestServer::start(Config { max_connections: 3, ..patient() });
    let mut waiting: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = server.connect();
            works_later(&mut client);
            client
        })
        .collect();
    works_later(&mut waiting[0]);
    let mut new = server.connect();
    assert!(new.works());
    assert!(!waiting[1].works(), "the second had waited longest");
    assert!(waiting[0].works() && waiting[2].works() && new.works());
    assert_eq!(server.closed("longest_idle"), 1.0);
}

#[test]
fn a_client_is_refused_with_503_when_nobody_waits() {
    let server = TestServer::start(Config { max_connections: 2, ..patient() });
    let mut busy: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for client in &mut busy {
        client.send("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n");
    }
    eventually(PATIENCE, || server.gate.arrived() == 2);
    let mut refused = server.connect();
    refused.try_send(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n");
    let answer = refused.answer();
    assert_eq!((answer.status, answer.closes(), answer.header("retry-after")), (503, true, Some("1")));
    refused.wait_for_close();
    server.gate.open();
    for client in &mut busy {
        assert_eq!(client.answer().body, b"slow");
    }
    assert_eq!(server.closed("connection_limit"), 1.0);
}

#[test]
fn one_address_has_its_own_limit() {
    let limits = Limits { exempt_loopback: false, ..patient().limits };
    let server = TestServer::start(Config { max_connections_per_ip: 2, limits, ..patient() });
    let mut first = server.connect();
    let mut second = server.connect();
    assert!(first.works() && second.works());
    let mut third = server.connect();
    assert_eq!(third.answer().status, 503);
    assert_eq!(server.closed("address_limit"), 1.0);

    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 2), server.address);
    assert!(other.works());

    first.hang_up();
    eventually(PATIENCE, || server.connect().works());
    assert!(second.works());
}

#[test]
fn loopback_and_trusted_proxies_have_no_limit_of_their_own() {
    let trusted = TrustedProxies::parse(["127.0.0.1"], "x-forwarded-for").unwrap();
    let limits = Limits { exempt_loopback: false, ..patient().limits };
    let proxied = Config { max_connections_per_ip: 1, trusted_proxies: trusted, limits, ..patient() };
    for config in [Config { max_connections_per_ip: 1, ..patient() }, proxied] {
        let server = TestServer::start(config);
        let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        assert!(clients.iter_mut().all(Client::works));
    }
}

/// Asks in a later tick than whoever asked before, so that the order of waiting is known.
fn works_later(client: &mut Client) {
    std::thread::sleep(Duration::from_millis(50));
    // The loop's turn that read the first of these may not have counted its tick yet.
    assert!(client.works() && client.works());
}

fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::on(socket.into())
}
