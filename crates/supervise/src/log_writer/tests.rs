//! The supervisor's handle and the log-writer's loop together, the latter on a thread in the place of a process.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe;

use super::outputs::Outputs;
use super::writer::Collector;
use super::*;
use crate::fleet::Unit;

/// Writes to nowhere but what a test gives it.
struct Started {
    log: LogWriter,
    thread: JoinHandle<()>,
}

fn start() -> Started {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
            .unwrap();
    let settings = LogSettings { json: false, files: None };
    let thread = thread::spawn({
        let settings = settings.clone();
        move || drop(Collector::new(theirs, Outputs::new(&settings, 1)).run())
    });
    let log = LogWriter {
        settings,
        socket: ours,
        pid: 0,
        started: Instant::now(),
        restart_at: None,
        hung_up: false,
        sources: Vec::new(),
        waiting: VecDeque::new(),
        dropped: 0,
    };
    Started { log, thread }
}

impl Started {
    /// Adds a process with two pipes; gives the ends it writes into.
    fn process(&mut self, pid: i32) -> [std::fs::File; 2] {
        let [(stdout, out), (stderr, err)] = [pipe().unwrap(), pipe().unwrap()];
        for ours in [&stdout, &stderr] {
            fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        }
        let author = Author::of(Unit::Worker(0), "w0".to_owned(), pid, 1);
        self.log.add_source(author, Pipes { stdout, stderr });
        [out.into(), err.into()]
    }

    fn answers(&mut self, count: usize) -> Vec<Tail> {
        let mut answers = Vec::new();
        while answers.len() < count {
            let mut readable = [PollFd::new(self.log.wants_to_read().unwrap(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut readable, PollTimeout::from(10_000_u16)), Ok(1), "no answer");
            answers.extend(self.log.take_answers());
        }
        answers
    }
}

#[test]
fn a_dead_process_is_quoted_with_everything_it_wrote_whoever_still_holds_its_pipes() {
    let mut started = start();
    let [mut other, _] = started.process(6);
    let [mut out, mut err] = started.process(7);
    for number in 0..50_000 {
        writeln!(other, "of another {number}").unwrap();
    }
    writeln!(out, "starts").unwrap();
    write!(err, "panicked at").unwrap();
    started.log.tail(7, 20);
    started.log.tail(6, 1);
    started.log.tail(8, 20);
    let tail = |pid, lines: &[&str]| Tail { pid, lines: lines.iter().map(|line| (*line).to_owned()).collect() };
    let expected = [tail(7, &["starts", "panicked at"]), tail(6, &["of another 49999"]), tail(8, &[])];
    assert_eq!(started.answers(3), expected);
}

#[test]
fn a_log_writer_that_is_gone_is_neither_asked_nor_waited_for() {
    let mut started = start();
    started.log.finish(Duration::from_secs(10));
    started.thread.join().unwrap();

    started = start();
    let (socket, gone) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).unwrap();
    drop(gone);
    started.log.socket = socket;
    started.log.tail(7, 20);
    started.log.line("unheard");
    assert!(started.log.take_answers().is_empty());
    assert!(started.log.wants_to_read().is_none(), "its end would wake the loop for ever");
    let (client, _other) = UnixStream::pair().unwrap();
    let wanted = LogsWanted { lines: 1, follow: false, json: false, source: None };
    assert!(started.log.hand_over(client.as_fd(), &wanted).is_err());
}

#[test]
fn one_command_too_many_is_told_so_and_harms_no_other() {
    let mut started = start();
    let wanted = LogsWanted { lines: 1, follow: true, json: false, source: None };
    let mut commands: Vec<_> = (0..65)
        .map(|_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            started.log.hand_over(theirs.as_fd(), &wanted).unwrap();
            ours
        })
        .collect();
    let mut refusal = String::new();
    commands.pop().unwrap().read_to_string(&mut refusal).unwrap();
    assert!(refusal.contains("too many") && refusal.contains("75"), "{refusal}");
    started.log.line("for all");
    for command in &mut commands {
        let mut text = Vec::new();
        while !text.ends_with(b"for all\n") {
            let mut bytes = [0; 100];
            let count = command.read(&mut bytes).unwrap();
            assert!(count > 0, "it was closed");
            text.extend_from_slice(&bytes[..count]);
        }
    }
}

#[test]
fn a_command_gets_its_answer_and_then_lines() {
    let mut started = start();
    started.log.line("one\ntwo");
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let wanted = LogsWanted { lines: 10, follow: false, json: false, source: None };
    started.log.hand_over(theirs.as_fd(), &wanted).unwrap();
    drop(theirs);
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).unwrap();
    let done = crate::frame::encode_json(&crate::control::Reply::Done);
    assert!(answer.starts_with(&done));
    let text = String::from_utf8(answer[done.len()..].to_vec()).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(lines, ["one", "two"], "{text}");
}
