//! Life without a terminal: `start --detach`, and the pid file.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use test_support::{GuardedChild, Signal, eventually, process};

use super::{Ended, Shell};

/// Flags for a program that is ready after a moment, at a port of the system's choice.
const QUICK: [&str; 6] = ["--workers", "2", "--listen", "127.0.0.1:0", "--set", "supervisor.min_uptime=50ms"];

const PATIENCE: Duration = Duration::from_secs(10);

/// A supervisor that left the terminal; killed at the latest when the test ends.
struct Daemon(u32);

impl Drop for Daemon {
    fn drop(&mut self) {
        process::signal(self.0, Signal::SIGKILL);
    }
}

impl Shell {
    fn start(&self, flags: &[&str], program: &[&str]) -> Ended {
        let words = ["start"].iter().chain(&QUICK).chain(flags).chain(&["--"]).chain(program);
        self.run(&words.copied().collect::<Vec<_>>())
    }

    fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.directory.path().join(name)).ok()
    }
}

/// The session a process is in, and its controlling terminal or 0.
fn session_and_terminal(pid: u32) -> (u32, i32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[3].parse().unwrap(), fields[4].parse().unwrap())
}

#[test]
fn a_detached_start_returns_the_pid_when_all_workers_are_ready_and_leaves_them_running_without_the_terminal() {
    let shell = Shell::new();
    let ended = shell.start(&["--detach", "--pid-file", "pid"], &["sleep", "1000"]);
    let daemon = Daemon(ended.stdout.trim().parse().unwrap_or_else(|error| panic!("{error}: {ended:?}")));
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(shell.text("pid"), Some(ended.stdout), "the pid file and the output tell the same");

    let status = shell.run(&["status", "--json"]).json();
    assert_eq!(status["supervisor"]["pid"], daemon.0);
    let states: Vec<_> = status["workers"].as_array().unwrap().iter().map(|worker| &worker["state"]).collect();
    assert_eq!(states, ["ready", "ready"], "it returned before they were");
    assert_eq!(session_and_terminal(daemon.0), (daemon.0, 0), "the terminal's hang-up would reach it");
    for stream in 0..=2 {
        let target = std::fs::read_link(format!("/proc/{}/fd/{stream}", daemon.0)).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "stream {stream}");
    }

    assert_eq!(shell.run(&["stop"]).code, 0);
    eventually(PATIENCE, || !process::is_alive(daemon.0));
    assert_eq!(shell.text("pid"), None, "the pid file is left behind");
}

#[test]
fn a_detached_start_that_fails_ends_as_it_would_in_the_foreground_and_says_why() {
    let shell = Shell::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &[&str], i32, &str); 4] = [
        (&["--listen", &address], &["true"], 73, &address),
        (&["--set", "http.keep_alive=5"], &["true"], 78, "expected a duration"),
        (&[], &["no-such-program-anywhere"], 69, "no-such-program-anywhere"),
        (&[], &["sh", "-c", "exit 78"], 78, "the supervisor ended before all workers were ready; the log is in "),
    ];
    for (flags, program, code, message) in cases {
        let flags: Vec<_> = ["--detach", "--pid-file", "pid"].iter().chain(flags).copied().collect();
        let ended = shell.start(&flags, program);
        assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{program:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(message), "{message} is missing in\n{}", ended.stderr);
        assert_eq!(ended.stderr.matches("error:").count(), 1, "said once:\n{}", ended.stderr);
        assert_eq!(shell.text("pid"), None);
    }
    assert_eq!(shell.run(&["ping"]).code, 3, "something runs after all");
}

#[test]
fn an_interrupted_detached_start_leaves_nothing_running() {
    let shell = Shell::new();
    let words = ["start", "--detach", "--pid-file", "pid", "--listen", "127.0.0.1:0", "--", "sleep", "1000"];
    let mut command = shell.command(&words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut waiting = GuardedChild::spawn(command.env("BELLWETHER__SUPERVISOR__MIN_UPTIME", "60s")).unwrap();
    let pid = eventually(PATIENCE, || shell.text("pid")?.trim().parse().ok());
    let daemon = Daemon(pid);
    waiting.signal(Signal::SIGINT);
    let status = waiting.wait_within(PATIENCE).expect("it waits for the supervisor's end, which has come");
    assert!(!status.success(), "{status}");
    eventually(PATIENCE, || !process::is_alive(daemon.0));
}

#[test]
fn a_pid_file_belongs_to_one_supervisor_and_the_second_starts_nothing() {
    let shell = Shell::new();
    let first = shell.start(&["--detach", "--pid-file", "pid"], &["sleep", "1000"]);
    let daemon = Daemon(first.stdout.trim().parse().unwrap());
    let flags = ["--pid-file", "pid", "--socket", "other.sock"];
    let second = shell.start(&flags, &["touch", "started"]);
    assert_eq!(second.code, 75, "{}", second.stderr);
    assert!(second.stderr.contains(&format!("(pid {})", daemon.0)), "{}", second.stderr);
    assert_eq!((shell.text("started"), shell.text("pid")), (None, Some(first.stdout)));
    assert_eq!(shell.run(&["stop"]).code, 0);
}

#[test]
fn a_pid_file_that_a_killed_supervisor_left_behind_is_no_obstacle() {
    let shell = Shell::new();
    let flags = ["--detach", "--pid-file", "pid"];
    let first = shell.start(&flags, &["sleep", "1000"]);
    drop(Daemon(first.stdout.trim().parse().unwrap()));
    let next = eventually(PATIENCE, || {
        let ended = shell.start(&flags, &["sleep", "1000"]);
        if ended.code == 0 { Ok(ended) } else { Err(ended.stderr) }
    });
    let daemon = Daemon(next.stdout.trim().parse().unwrap());
    assert_ne!(next.stdout, first.stdout);
    assert_eq!(shell.text("pid"), Some(format!("{}\n", daemon.0)));
    assert_eq!(shell.run(&["stop"]).code, 0);
}

#[test]
fn of_many_supervisors_that_start_at_once_with_one_pid_file_one_lives() {
    let shell = Shell::new();
    std::fs::write(shell.directory.path().join("pid"), "1\n").unwrap();
    let names: Vec<_> = (0..8).map(|number| format!("{number}.sock")).collect();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = names
            .iter()
            .map(|name| {
                let flags = ["--detach", "--pid-file", "pid", "--socket", name];
                let shell = &shell;
                scope.spawn(move || shell.start(&flags, &["sleep", "1000"]))
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let daemons: Vec<_> = ended.iter().filter_map(|ended| ended.stdout.trim().parse().ok()).map(Daemon).collect();
    let mut codes: Vec<_> = ended.iter().map(|ended| ended.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 75, 75, 75, 75, 75, 75, 75], "{ended:?}");
    assert_eq!(shell.text("pid"), Some(format!("{}\n", daemons[0].0)));
}

#[test]
fn a_pid_file_that_cannot_be_made_ends_with_73_before_anything_starts() {
    let shell = Shell::new();
    let ended = shell.start(&["--pid-file", "none/pid"], &["touch", "started"]);
    assert_eq!(ended.code, 73, "{}", ended.stderr);
    assert!(ended.stderr.contains("none/pid"), "{}", ended.stderr);
    assert_eq!(shell.text("started"), None);
}
