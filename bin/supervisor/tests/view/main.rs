//! What `status --watch`, `describe` and `top` show of a supervisor, through pipes and on a terminal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod fake;

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use test_support::{GuardedChild, Signal, eventually, process};

use self::fake::FakeSupervisor;

const SOON: Duration = Duration::from_secs(10);

/// Of the terminal.
const COLUMNS: NonZeroU16 = NonZeroU16::new(100).unwrap();
const ROWS: NonZeroU16 = NonZeroU16::new(30).unwrap();

/// A supervisor in a directory of its own.
struct Place {
    // Goes first: its socket is in the directory.
    supervisor: Option<FakeSupervisor>,
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("view").tempdir_in("/tmp").unwrap();
        let mut place = Self { supervisor: None, directory };
        place.start_supervisor();
        place
    }

    fn start_supervisor(&mut self) {
        self.supervisor = Some(FakeSupervisor::listen(&self.socket()));
    }

    fn end_supervisor(&mut self) {
        self.supervisor = None;
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s.sock")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("LANG", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Without a terminal.
    fn start(&self, arguments: &[&str]) -> Shown {
        let mut command = self.command(env!("CARGO_BIN_EXE_supervisor"));
        command.args(arguments).arg("--socket").arg(self.socket());
        Shown::start(command)
    }

    /// On a terminal that `script` provides.
    fn start_on_terminal(&self, arguments: &str) -> Shown {
        self.start_on_terminal_of("xterm", arguments)
    }

    fn start_on_terminal_of(&self, kind: &str, arguments: &str) -> Shown {
        let line = format!(
            "stty cols {COLUMNS} rows {ROWS}; exec {} {arguments} --socket {}",
            env!("CARGO_BIN_EXE_supervisor"),
            self.socket().display()
        );
        let mut command = self.command("script");
        command.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]);
        command.env("SHELL", "/bin/sh").env("TERM", kind);
        Shown::start(command)
    }
}

/// A running command and what it has written so far.
struct Shown {
    child: GuardedChild,
    input: ChildStdin,
    output: Arc<Mutex<Vec<u8>>>,
    errors: Arc<Mutex<Vec<u8>>>,
}

impl Shown {
    fn start(mut command: Command) -> Self {
        let mut child = GuardedChild::spawn(&mut command).unwrap();
        let input = child.child().stdin.take().unwrap();
        let output = collected(child.child().stdout.take().unwrap());
        let errors = collected(child.child().stderr.take().unwrap());
        Self { child, input, output, errors }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    fn errors(&self) -> String {
        String::from_utf8_lossy(&self.errors.lock().unwrap()).into_owned()
    }

    /// What a terminal shows after all that was written.
    fn screen(&self) -> vt100::Screen {
        let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
        terminal.process(&self.output.lock().unwrap());
        terminal.screen().clone()
    }

    #[track_caller]
    fn says(&self, part: &str) {
        eventually(SOON, || if self.text().contains(part) { Ok(()) } else { Err(self.text()) });
    }

    #[track_caller]
    fn shows(&self, part: &str) {
        let contents = || self.screen().contents();
        eventually(SOON, || if contents().contains(part) { Ok(()) } else { Err(contents()) });
    }

    #[track_caller]
    fn gave_the_terminal_back(&self) {
        let is_back = || !self.screen().alternate_screen() && !self.screen().hide_cursor();
        eventually(SOON, || if is_back() { Ok(()) } else { Err(self.text()) });
    }

    fn press(&mut self, keys: &str) {
        self.input.write_all(keys.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    #[track_caller]
    fn ends_with(&mut self, code: i32) {
        let status = self.child.wait_within(SOON).unwrap_or_else(|| panic!("it does not end:\n{}", self.text()));
        assert_eq!(status.code(), Some(code), "{}{}", self.text(), self.errors());
    }
}

fn collected(mut stream: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&collected);
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            shared.lock().unwrap().extend_from_slice(&bytes[..count]);
        }
    });
    collected
}

#[test]
fn a_watched_status_is_a_table_per_second_until_the_supervisor_ends() {
    let mut place = Place::new();
    let mut shown = place.start(&["status", "--watch"]);
    eventually(SOON, || shown.text().matches("2 of 2 workers ready").count() >= 2);
    assert!(!shown.text().contains('\u{1b}'), "a pipe gets no escape codes:\n{}", shown.text());
    place.end_supervisor();
    shown.ends_with(3);
    eventually(SOON, || shown.errors() == "error: the supervisor has ended\n");
}

#[test]
fn a_watched_status_on_a_terminal_is_drawn_over_the_last_one() {
    let place = Place::new();
    let mut shown = place.start_on_terminal("status --watch");
    eventually(SOON, || shown.text().matches("2 of 2 workers ready").count() >= 3);
    shown.press("\u{3}");
    shown.ends_with(0);
    let contents = shown.screen().contents();
    assert_eq!(contents.matches("2 of 2 workers ready").count(), 1, "{contents}");
    assert_eq!(contents.lines().count(), 8, "three lines of frame, titles, two workers, a summary, and ^C: {contents}");
}

#[test]
fn control_c_ends_a_watched_status_with_0() {
    let place = Place::new();
    let mut shown = place.start(&["status", "--watch"]);
    shown.says("2 of 2 workers ready");
    shown.child.signal(Signal::SIGINT);
    shown.ends_with(0);
}

#[test]
fn describe_shows_one_worker_as_a_page_or_a_document() {
    let place = Place::new();
    let mut page = place.start(&["describe", "w1"]);
    page.ends_with(0);
    for line in ["worker       w1\n", "command      worker serve\n", "memory       38.1mb\n", "exits        -\n"] {
        page.says(line);
    }
    let mut document = place.start(&["describe", "1", "--json"]);
    document.ends_with(0);
    document.says("\n");
    assert_eq!(document.text(), format!("{}\n", serde_json::to_string(&fake::description()).unwrap()));
}

#[test]
fn describe_of_a_worker_that_is_not_there_ends_as_the_supervisor_says() {
    let place = Place::new();
    let mut shown = place.start(&["describe", "7"]);
    shown.ends_with(2);
    eventually(SOON, || shown.errors() == "error: there is no worker w7\n");
    assert_eq!(shown.text(), "");
}

#[test]
fn top_shows_workers_and_log_asks_before_it_acts_and_gives_the_terminal_back() {
    let place = Place::new();
    let mut shown = place.start_on_terminal("top");
    shown.shows("41278");
    shown.shows("w1| the second line");
    shown.press("r");
    shown.shows("Replace all workers by the next generation?");
    shown.press("y");
    shown.shows("reload failed: rolled back: w0 exited with 1");
    shown.shows("its last words: no such table");
    assert!(shown.screen().alternate_screen());
    shown.press("q");
    shown.ends_with(0);
    shown.gave_the_terminal_back();
}

#[test]
fn top_waits_for_a_supervisor_that_goes_away() {
    let mut place = Place::new();
    let mut shown = place.start_on_terminal("top");
    shown.shows("w1| the second line");
    place.end_supervisor();
    shown.shows("trying again every second");
    shown.shows("41278");
    place.start_supervisor();
    eventually(SOON, || !shown.screen().contents().contains("trying again"));
    shown.shows("w1| the second line");
    shown.press("\u{3}");
    shown.ends_with(0);
    shown.gave_the_terminal_back();
}

#[test]
fn a_signal_ends_top_and_gives_the_terminal_back() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let place = Place::new();
        let mut shown = place.start_on_terminal("top");
        shown.shows("41278");
        let top = process::children(shown.child.pid());
        assert_eq!(top.len(), 1, "the shell was replaced: {top:?}");
        assert!(process::signal(top[0], signal));
        shown.ends_with(0);
        shown.gave_the_terminal_back();
    }
}

#[test]
fn top_leaves_a_terminal_alone_that_it_cannot_use() {
    let mut place = Place::new();
    let mut dumb = place.start_on_terminal_of("dumb", "top");
    dumb.ends_with(2);
    dumb.shows("status --watch can");
    place.end_supervisor();
    let mut alone = place.start_on_terminal("top");
    alone.ends_with(3);
    alone.shows("no supervisor is running");
    assert!(!dumb.text().contains('\u{1b}') && !alone.text().contains("\u{1b}[?"), "it was drawn on");
}
