//! Telling the service manager how things go: systemd's notification protocol, without ever waiting for it.
//!
//! The crates that speak it send from a socket that blocks when the manager is busy, and a supervisor must not wait. Here a
//! message that finds no room is kept and sent later, in order.

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::handover::moment::monotonic_microseconds;

/// When a message that found no room is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// More waiting messages than this are of no use to anybody; the oldest go first.
const MOST_WAITING: usize = 16;

/// Whoever started this process and wants to know how it is. Without one, nothing is said.
#[derive(Debug)]
pub struct ServiceManager {
    link: Option<Link>,
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Link {
    socket: UnixDatagram,
    address: SocketAddr,
    waiting: VecDeque<String>,
    retry_at: Option<Instant>,
    /// The last that was said.
    status: String,
}

#[derive(Debug)]
struct Watchdog {
    /// Half of what the manager grants.
    every: Duration,
    next: Instant,
}

impl ServiceManager {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say. What cannot be used counts as absent.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| env::var_os(name), Instant::now())
    }

    /// All is up, or the reload is over.
    pub fn ready(&mut self) {
        self.say("READY=1".to_owned());
    }

    /// A reload has begun; [`ServiceManager::ready`] is to follow, however it ends.
    pub fn reloading(&mut self) {
        // The manager compares it with the moment it asked for the reload.
        self.say(format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_microseconds()));
    }

    /// The end has begun.
    pub fn stopping(&mut self) {
        self.say("STOPPING=1".to_owned());
    }

    /// What `systemctl status` shows; says nothing when that has not changed.
    pub fn status(&mut self, text: &str) {
        let Some(link) = &mut self.link else { return };
        if link.status == text {
            return;
        }
        link.status = text.to_owned();
        // An older one that still waits is out of date.
        link.waiting.retain(|message| !message.starts_with("STATUS="));
        link.say(format!("STATUS={}", text.replace('\n', " ")));
    }

    /// Process `pid` is the one to watch.
    pub fn main_pid(&mut self, pid: i32) {
        self.say(format!("MAINPID={pid}"));
    }

    /// Says that the loop still turns, when that is due, and what found no room before.
    pub fn watchdog(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if let Some(watchdog) = &mut self.watchdog
            && now >= watchdog.next
        {
            watchdog.next = now + watchdog.every;
            link.say("WATCHDOG=1".to_owned());
        } else if link.retry_at.is_some_and(|at| now >= at) {
            link.send_waiting();
        }
    }

    /// When [`ServiceManager::watchdog`] has something to do.
    pub fn next_watchdog(&self) -> Option<Instant> {
        let link = self.link.as_ref()?;
        self.watchdog.as_ref().map(|watchdog| watchdog.next).into_iter().chain(link.retry_at).min()
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>, now: Instant) -> Self {
        let link = variable("NOTIFY_SOCKET").and_then(|name| Link::to(&name).ok());
        let own_pid = std::process::id().to_string();
        let is_for_us = variable("WATCHDOG_PID").is_none_or(|pid| pid == own_pid.as_str());
        let number = || variable("WATCHDOG_USEC")?.to_str()?.parse::<u64>().ok();
        let granted = number().filter(|&microseconds| is_for_us && microseconds > 0);
        let watchdog = granted.map(|microseconds| {
            let every = Duration::from_micros(microseconds / 2);
            Watchdog { every, next: now + every }
        });
        Self { link, watchdog }
    }

    fn say(&mut self, message: String) {
        if let Some(link) = &mut self.link {
            link.say(message);
        }
    }
}

impl Link {
    /// `name` is a path, or a name in no directory when it begins with `@`.
    fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address, waiting: VecDeque::new(), retry_at: None, status: String::new() })
    }

    fn say(&mut self, message: String) {
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(message);
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        self.retry_at = None;
        while let Some(message) = self.waiting.front() {
            match self.socket.send_to_addr(message.as_bytes(), &self.address) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                    return;
                }
                // Where nobody listens, nobody has to be told.
                Ok(_) | Err(_) => self.waiting.pop_front(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a manager that has to be told everything sees.
    struct Manager {
        _directory: tempfile::TempDir,
        socket: UnixDatagram,
        path: OsString,
    }

    impl Manager {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { _directory: directory, socket, path: path.into() }
        }

        /// A supervisor's side that finds these `variables` beside the socket's name.
        fn starts(&self, variables: &[(&str, &str)], now: Instant) -> ServiceManager {
            let path = self.path.clone();
            let variable = |name: &str| match variables.iter().find(|(candidate, _)| *candidate == name) {
                Some((_, value)) => Some(OsString::from(value)),
                None => (name == "NOTIFY_SOCKET").then(|| path.clone()),
            };
            ServiceManager::from_variables(variable, now)
        }

        fn heard(&self) -> Vec<String> {
            let mut heard = Vec::new();
            let mut bytes = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut bytes) {
                heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
            heard
        }
    }

    #[test]
    fn a_life_is_told_in_order_and_a_status_only_when_it_changes() {
        let manager = Manager::new();
        let mut service = manager.starts(&[], Instant::now());
        service.status("starting");
        service.status("starting");
        service.ready();
        service.status("2 of 2\nworkers");
        service.main_pid(42);
        service.reloading();
        service.ready();
        service.stopping();
        let mut heard = manager.heard();
        let reloading = heard.remove(4);
        let expected = ["STATUS=starting", "READY=1", "STATUS=2 of 2 workers", "MAINPID=42", "READY=1", "STOPPING=1"];
        assert_eq!(heard, expected);

        let (first, time) = reloading.split_once('\n').unwrap();
        assert_eq!(first, "RELOADING=1");
        let told: u64 = time.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        let now = monotonic_microseconds();
        assert!(told <= now && now - told < 60_000_000, "{told} is not a moment ago: {now}");
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_asks_for() {
        let manager = Manager::new();
        let start = Instant::now();
        let mut service = manager.starts(&[("WATCHDOG_USEC", "2000000")], start);
        let second = Duration::from_secs(1);
        assert_eq!(service.next_watchdog(), Some(start + second));
        service.watchdog(start + second / 2);
        assert_eq!(manager.heard(), [""; 0], "too early");
        service.watchdog(start + second);
        assert_eq!(manager.heard(), ["WATCHDOG=1"]);
        assert_eq!(service.next_watchdog(), Some(start + second * 2));
    }

    #[test]
    fn a_watchdog_for_another_process_or_of_no_length_is_none() {
        let manager = Manager::new();
        for variables in [
            &[("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "1")][..],
            &[("WATCHDOG_USEC", "0")],
            &[("WATCHDOG_USEC", "soon")],
            &[],
        ] {
            assert_eq!(manager.starts(variables, Instant::now()).next_watchdog(), None, "{variables:?}");
        }
        let own_pid = std::process::id().to_string();
        let variables = [("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", own_pid.as_str())];
        assert!(manager.starts(&variables, Instant::now()).next_watchdog().is_some());
    }

    #[test]
    fn a_manager_that_does_not_listen_delays_nobody_and_is_told_the_newest_later() {
        let manager = Manager::new();
        let start = Instant::now();
        let mut service = manager.starts(&[], start);
        let said = 2000;
        for number in 0..said {
            service.status(&format!("status {number}"));
        }
        service.ready();
        assert!(start.elapsed() < Duration::from_secs(5));
        let before = manager.heard();
        assert!(before.len() < said && before.iter().all(|message| message != "READY=1"), "{before:?}");

        let retry_at = service.next_watchdog().expect("something still waits");
        service.watchdog(retry_at);
        assert_eq!(manager.heard(), [format!("STATUS=status {}", said - 1), "READY=1".to_owned()]);
        assert_eq!(service.next_watchdog(), None);
    }

    #[test]
    fn a_socket_with_a_name_in_no_directory_is_reached() {
        let name = format!("supervise-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let mut service = Manager::new().starts(&[("NOTIFY_SOCKET", &format!("@{name}"))], Instant::now());
        service.ready();
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        let gone = Manager::new().path.to_str().unwrap().to_owned();
        let too_long = "/x".repeat(100);
        for name in [gone.as_str(), &too_long, ""] {
            let mut service = Manager::new().starts(&[("NOTIFY_SOCKET", name)], Instant::now());
            service.ready();
            service.status("fine");
            service.watchdog(Instant::now());
            assert_eq!(service.next_watchdog(), None, "{name}");
        }
        let mut nobody = ServiceManager::from_variables(|_| None, Instant::now());
        nobody.reloading();
        nobody.stopping();
        assert_eq!(nobody.next_watchdog(), None);
    }
}
