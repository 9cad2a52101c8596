//! Sockets that somebody else has bound and hands over, as systemd does.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Output};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use supervise::control::{Client, Request};
use supervise::system::ActivatedSocket;

use crate::harness::{Supervised, command, directory, eventually, set_mode};

/// Prints what was handed over, and that it is handed over once.
pub(crate) fn role() -> i32 {
    let sockets = match ActivatedSocket::from_environment() {
        Ok(sockets) => sockets,
        Err(error) => {
            eprintln!("{error}");
            return error.exit_code().into();
        }
    };
    for socket in &sockets {
        let flags = FdFlag::from_bits_retain(fcntl(&socket.descriptor, FcntlArg::F_GETFD).unwrap());
        println!("{} {} {}", socket.name, socket.address, flags.contains(FdFlag::FD_CLOEXEC));
    }
    println!("{} more", ActivatedSocket::from_environment().unwrap().len());
    0
}

/// Runs the role with `first` and `second` as descriptors 3 and 4.
fn activated(first: BorrowedFd<'_>, second: BorrowedFd<'_>, names: &str) -> Output {
    for socket in [first, second] {
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    }
    let (one, other) = (first.as_raw_fd(), second.as_raw_fd());
    // Copied out of the way first: a target may be the other one's source.
    let script = format!("exec 8<&{one} 9<&{other}; exec 3<&8 4<&9; LISTEN_PID=$$ exec \"$0\" role-activated");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(std::env::current_exe().unwrap());
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names).output().unwrap()
}

pub(crate) fn sockets_are_taken_over_in_order_with_their_names_and_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
    let output = activated(tcp.as_fd(), unix.as_fd(), "web:admin");
    let expected = format!("web {} true\nadmin unix:{} true\n0 more\n", tcp.local_addr().unwrap(), path.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
}

pub(crate) fn a_socket_that_cannot_be_served_at_is_refused_with_its_name_and_78() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = File::open("/dev/null").unwrap();
    for (wrong, reason) in [(udp.as_fd(), "(dns) is no stream socket"), (file.as_fd(), "(dns) is no socket")] {
        let output = activated(tcp.as_fd(), wrong, "web:dns");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{message}");
        assert!(message.contains("descriptor 4") && message.contains(reason), "{message}");
    }
}

pub(crate) fn what_the_service_manager_says_to_the_supervisor_is_not_passed_on() {
    let directory = directory("");
    let told = directory.path().join("environment");
    let script = format!("foreign=env > {}; exit 78", told.display());
    let mut command = command(directory.path(), &[&script, "workers=1"]);
    let meant_for_us = ["LISTEN_PIDFDID", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "SYSTEMD_EXEC_PID"];
    command.envs(meant_for_us.map(|name| (name, "1"))).env("INVOCATION_ID", "abc");
    command.env("NOTIFY_SOCKET", "/run/systemd/notify");
    assert_eq!(command.output().unwrap().status.code(), Some(78));
    let environment = fs::read_to_string(told).unwrap();
    for name in meant_for_us {
        // A watchdog of our own takes the place of the service manager's.
        assert!(!environment.contains(&format!("{name}=1\n")), "{name} is passed on:\n{environment}");
    }
    assert!(environment.contains("INVOCATION_ID=abc"), "what is meant for all is kept back:\n{environment}");
    assert!(!environment.contains("/run/systemd/notify"), "the worker would speak for the supervisor:\n{environment}");
}

pub(crate) fn the_service_manager_hears_of_readiness_only_when_all_are_ready() {
    let directory = directory("never-ready");
    let manager = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    manager.set_nonblocking(true).unwrap();
    fs::write(directory.path().join("reload"), "wrong").unwrap();
    let mut command = command(directory.path(), &["workers=1"]);
    command.env("NOTIFY_SOCKET", directory.path().join("notify"));
    let supervised = Supervised::follow(directory, command);
    let said = |what: &str| {
        let mut bytes = [0; 4096];
        let messages = std::iter::from_fn(|| manager.recv(&mut bytes).ok().map(|count| bytes[..count].to_vec()));
        messages.map(|message| String::from_utf8(message).unwrap()).any(|message| message.contains(what))
    };
    // Connections queue before anybody looks at signals.
    eventually("it answers", || Client::connect(&supervised.socket()).is_ok_and(|mut client| client.ping().is_ok()));
    supervised.signal(Signal::SIGHUP);
    eventually("the reload is refused", || supervised.line("wrong is no assignment").is_some());
    assert!(!said("READY=1"), "no worker is");
    set_mode(supervised.directory.path(), "mode", "");
    supervised.change(&Request::Restart { id: None, hard: true });
    eventually("it is told", || said("READY=1"));
    supervised.signal(Signal::SIGHUP);
    eventually("a reload is told from now on", || said("RELOADING=1"));
}
