//! The kernel's behaviour that the shards rely on, with real sockets.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::*;

fn spec(workers: u32, listen: &[&str]) -> Spec {
    let program = Program::Own { executable: "/bin/true".into(), args: Vec::new() };
    let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    Spec { workers, listen, ..Spec::new(program, "/nonexistent/supervisor.sock".into()) }
}

/// Takes every connection that is queued and counts them by slot.
fn accept_all(listeners: &[TcpListener], counts: &mut [u32]) {
    for (listener, count) in listeners.iter().zip(counts) {
        loop {
            match listener.accept() {
                Ok(_) => *count += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Copies of the shards of the first address, as workers would have them.
fn shards(sockets: &Sockets, workers: u32) -> Vec<TcpListener> {
    (0..workers).map(|slot| sockets.of_slot(slot, 1)[0].1.try_clone_to_owned().unwrap().into()).collect()
}

/// Connects `count` times, a few at a time, and says how many each slot got.
fn spread(sockets: &Sockets, workers: u32, count: u32) -> Vec<u32> {
    let listeners = shards(sockets, workers);
    let mut counts = vec![0; workers as usize];
    for _ in 0..count / 100 {
        let connections: Vec<_> =
            (0..100).map(|_| TcpStream::connect(&sockets.addresses(1)[0]).expect("nobody is refused")).collect();
        accept_all(&listeners, &mut counts);
        drop(connections);
    }
    assert_eq!(counts.iter().sum::<u32>(), count, "a connection went to no slot");
    counts
}

#[test]
fn of_fifty_thousand_connections_no_slot_gets_fifteen_percent_more_than_another() {
    let sockets = Sockets::bind(&spec(4, &["127.0.0.1:0"]), Vec::new()).unwrap();
    let counts = spread(&sockets, 4, 50_000);
    let (fewest, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(f64::from(*most) / f64::from(*fewest) <= 1.15, "{counts:?}");
}

#[test]
fn of_sixty_four_kept_connections_hardly_ever_do_two_in_five_go_to_one_slot() {
    let sockets = Sockets::bind(&spec(4, &["127.0.0.1:0"]), Vec::new()).unwrap();
    let listeners = shards(&sockets, 4);
    let bursts = (0..50).filter(|_| {
        let mut counts = [0; 4];
        let kept: Vec<_> = (0..64).map(|_| TcpStream::connect(&sockets.addresses(1)[0]).unwrap()).collect();
        accept_all(&listeners, &mut counts);
        assert_eq!(counts.iter().sum::<u32>(), kept.len() as u32);
        counts.iter().any(|count| f64::from(*count) > 0.4 * 64.0)
    });
    // Chance alone does so in one burst of a hundred; in six of fifty less than once in ten thousand runs.
    let uneven = bursts.count();
    assert!(uneven <= 5, "{uneven} bursts of 50");
}

#[test]
fn connections_go_to_the_named_slots_only_and_back_to_all() {
    let sockets = Sockets::bind(&spec(4, &["127.0.0.1:0"]), Vec::new()).unwrap();
    sockets.steer(&[1, 3]).unwrap();
    let counts = spread(&sockets, 4, 400);
    assert_eq!((counts[0], counts[2]), (0, 0), "{counts:?}");
    assert!(counts[1] > 100 && counts[3] > 100, "{counts:?}");
    sockets.steer(&[2]).unwrap();
    assert_eq!(spread(&sockets, 4, 100), [0, 0, 100, 0]);
    sockets.steer(&[0, 1, 2, 3]).unwrap();
    assert!(spread(&sockets, 4, 800).iter().all(|count| *count > 100));
}

#[test]
fn the_system_chooses_one_port_for_all_slots() {
    let sockets = Sockets::bind(&spec(3, &["127.0.0.1:0", "[::1]:0"]), Vec::new()).unwrap();
    let addresses = sockets.addresses(1);
    assert!(!addresses[0].ends_with(":0") && !addresses[1].ends_with(":0"), "{addresses:?}");
    for slot in 0..3 {
        let of_slot = sockets.of_slot(slot, 1);
        assert_eq!(of_slot.len(), 2);
        let local = TcpListener::from(of_slot[0].1.try_clone_to_owned().unwrap()).local_addr().unwrap();
        assert_eq!(local.to_string(), addresses[0]);
    }
}

#[test]
fn a_taken_port_is_refused_with_its_holder_though_both_would_share_it() {
    let first = Sockets::bind(&spec(2, &["127.0.0.1:0"]), Vec::new()).unwrap();
    let Err(Error::AddressTaken { address, holder }) = Sockets::bind(&spec(2, &[&first.addresses(1)[0]]), Vec::new())
    else {
        panic!("two supervisors share an address");
    };
    assert_eq!(address, first.addresses(1)[0]);
    let own = format!("(pid {})", std::process::id());
    assert!(holder.as_ref().is_some_and(|holder| holder.ends_with(&own)), "{holder:?}");
}

#[test]
fn the_admin_socket_is_one_for_all_slots_and_comes_last() {
    let mut spec = spec(2, &["127.0.0.1:0"]);
    spec.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    let sockets = Sockets::bind(&spec, Vec::new()).unwrap();
    let names: Vec<_> = sockets.of_slot(1, 1).iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["http", "admin"]);
    assert!(sockets.admin_address().is_some_and(|address| address.port() != 0));

    spec.program = Program::Foreign { program: "true".into(), args: Vec::new() };
    assert_eq!(
        Sockets::bind(&spec, Vec::new()).unwrap().admin_address(),
        None,
        "a foreign program would serve it as its own"
    );
}

#[test]
fn a_unix_socket_that_nobody_listens_on_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let address = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a file is left behind");
    let sockets = Sockets::bind(&spec(2, &[&address]), Vec::new()).unwrap();
    assert!(matches!(Sockets::bind(&spec(2, &[&address]), Vec::new()), Err(Error::AddressTaken { .. })));
    UnixStream::connect(&path).unwrap();
    drop(sockets);
    assert!(!Path::new(&path).exists());
}

#[test]
fn queued_connections_outlive_the_worker_that_did_not_accept_them() {
    let sockets = Sockets::bind(&spec(1, &["127.0.0.1:0"]), Vec::new()).unwrap();
    let worker = shards(&sockets, 1);
    let queued: Vec<_> = (0..50).map(|_| TcpStream::connect(&sockets.addresses(1)[0]).unwrap()).collect();
    drop(worker);
    let mut counts = [0];
    accept_all(&shards(&sockets, 1), &mut counts);
    assert_eq!(counts, [queued.len() as u32]);
}

#[test]
fn sockets_that_were_handed_over_are_given_up_only_on_purpose() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let handed_over = || {
        let sockets = Sockets::bind(&spec(1, &[&format!("unix:{}", path.display())]), Vec::new()).unwrap();
        let text = serde_json::to_string(&sockets).unwrap();
        // Whoever reads the text owns the descriptors.
        std::mem::forget(sockets);
        text
    };
    // What a program does that knows of one field more than the one before.
    assert!(serde_json::from_str::<(Sockets, u32)>(&format!("[{},\"no number\"]", handed_over())).is_err());
    assert!(path.exists(), "the file is in use by the one who goes on");
    serde_json::from_str::<Sockets>(&handed_over()).unwrap().close();
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_whose_queue_is_full_is_taken_and_nobody_waits_for_room_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let _queued: Vec<_> = (0..2).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let (tell, told) = std::sync::mpsc::channel();
    let address = format!("unix:{}", path.display());
    std::thread::spawn(move || tell.send(Sockets::bind(&spec(1, &[&address]), Vec::new()).unwrap_err()));
    let refused = told.recv_timeout(std::time::Duration::from_secs(20)).expect("nobody waits");
    assert_eq!(refused.exit_code(), 73);
}
