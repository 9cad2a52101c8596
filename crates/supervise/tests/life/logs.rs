//! What must be true of captured output: nothing is lost but what is counted, and nobody waits for it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use supervise::control::LogsWanted;

use crate::harness::{Supervised, ask, command, directory, eventually, signal, within};

/// The most that a worker may write and be sure that nothing is dropped, however slow this machine is just now.
const LINES: usize = 2_000;

const NO_LINES: LogsWanted = LogsWanted { lines: 0, follow: false, json: false, source: None };

/// The text of a log and of those it was rotated to, the oldest first; empty while there is none.
fn files(directory: &Path, name: &str) -> Vec<String> {
    let path = directory.join("logs").join(name);
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    let rotated = (1..).map(numbered).take_while(|path| path.exists());
    let mut paths: Vec<_> = [path.clone()].into_iter().chain(rotated).collect();
    paths.reverse();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

fn text(directory: &Path, name: &str) -> String {
    files(directory, name).concat()
}

/// The numbers of the lines that worker `id` has counted, as they stand in `text`.
fn numbers(text: &str, id: u32) -> Vec<usize> {
    let of_worker = text.lines().filter_map(|line| line.strip_prefix(&format!("w{id}| number ")));
    of_worker.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// Lines that a client reads, at most `count`.
fn read(supervised: &Supervised, wanted: &LogsWanted, count: usize) -> Vec<String> {
    let lines = supervised.client().logs(wanted).unwrap().unwrap();
    BufReader::new(lines).lines().take(count).map(Result::unwrap).collect()
}

pub(crate) fn every_stream_has_a_private_file() {
    let supervised = Supervised::start_in(directory("count-11"), &["process=redis", "log_file_bytes=10000"]);
    let own = supervised.directory.path();
    let has = |name: &str, line: &str| eventually(line, || text(own, name).lines().any(|found| found.contains(line)));
    has("out.log", "w0| number 10 xxxxxxxxxx");
    has("out.log", "redis| process starts");
    has("err.log", "w1| number 10");
    has("supervisor.log", "supervisor| 2");
    has("supervisor.log", "w1 (pid");
    assert!(!text(own, "out.log").contains("supervisor| "));
    assert_eq!(numbers(&text(own, "err.log"), 0), [0, 10]);
    let everything = LogsWanted { lines: 5_000, ..NO_LINES };
    let kept = ["out.log", "supervisor.log"].map(|name| text(own, name)).concat();
    let shown = read(&supervised, &everything, usize::MAX).concat();
    assert!(!(kept + &shown).contains("READY "), "what is for stdout alone was kept");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let logs = own.join("logs");
    assert_eq!((mode(logs.clone()), mode(logs.join("out.log")), mode(logs.join("err.log"))), (0o700, 0o600, 0o600));
}

pub(crate) fn four_talkative_workers_lose_no_line_over_many_rotations() {
    let words = ["workers=4", "log_json=1", "log_file_bytes=20000"];
    let supervised = Supervised::start_unread(directory(&format!("count-{LINES}")), &words);
    let own = supervised.directory.path();
    let wanted = [("out.log", (0..LINES).collect()), ("err.log", (0..LINES).step_by(10).collect::<Vec<_>>())];
    for (name, wanted) in wanted {
        let numbers_of = |text: &str, worker: &str| -> Vec<usize> {
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let of_worker = lines.filter(|line| line["worker"] == worker);
            let words =
                of_worker.filter_map(|line| line["line"].as_str().unwrap().strip_prefix("number ").map(str::to_owned));
            words.map(|words| words.split(' ').next().unwrap().parse().unwrap()).collect()
        };
        eventually("all lines are there", || text(own, name).matches("\"number ").count() == 4 * wanted.len());
        let files = files(own, name);
        assert!(files.len() > 4, "only {} files", files.len());
        for file in &files {
            assert!(file.len() <= 20_000 && file.ends_with('\n'), "{} bytes", file.len());
        }
        for worker in ["w0", "w1", "w2", "w3"] {
            assert_eq!(numbers_of(&files.concat(), worker), wanted, "{name} {worker}");
        }
    }
    let text = text(own, "err.log");
    let line: Value = serde_json::from_str(text.lines().find(|line| line.contains("\"w2\"")).unwrap()).unwrap();
    let pid = supervised.worker_pid(2).unwrap();
    assert_eq!((&line["pid"], &line["generation"], &line["stream"]), (&pid.into(), &1.into(), &"stderr".into()));
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
}

pub(crate) fn a_full_disk_holds_up_nobody_and_costs_lines_that_are_counted() {
    const COUNTED: usize = 130_000;
    let directory = directory(&format!("count-{COUNTED}"));
    let logs = directory.path().join("logs");
    fs::create_dir(&logs).unwrap();
    symlink("/dev/full", logs.join("out.log")).unwrap();
    // Its worker is ready, so it has written everything.
    let supervised = Supervised::start_into_file(directory, &["workers=1", "log_file_bytes=100000000"]);
    let own = supervised.directory.path();
    let stdout = own.join("stdout");
    let told = || fs::read_to_string(&stdout).unwrap().contains("No space left on device");
    eventually("the trouble is told", told);
    eventually("the other file goes on", || numbers(&text(own, "err.log"), 0).len() == COUNTED / 10);
    fs::remove_file(logs.join("out.log")).unwrap();
    let dropped = || {
        let text = text(own, "out.log");
        let line = text.lines().find(|line| line.contains(" lines were dropped"))?;
        line.split(' ').find_map(|word| word.parse::<usize>().ok())
    };
    eventually("the loss is told", || dropped().is_some());
    let kept = numbers(&text(own, "out.log"), 0);
    let in_order: Vec<_> = (0..kept.len()).collect();
    assert_eq!(kept, in_order, "there is one gap, at the end");
    assert_eq!(dropped(), Some(COUNTED - kept.len()));
    ask(&supervised.status().supervisor.listen[0], Duration::ZERO).unwrap();
    eventually("the file goes on", || text(own, "out.log").ends_with("w0| a connection\n"));
}

pub(crate) fn files_that_were_moved_away_are_opened_anew_without_losing_a_line() {
    let supervised = Supervised::start(&["workers=1", "log_file_bytes=100000"]);
    let own = supervised.directory.path();
    let path = own.join("logs/out.log");
    let connections = |text: &str| text.matches("| a connection\n").count();
    for round in 1..=3 {
        supervised.ask(0).unwrap();
        eventually("the line is there", || connections(&text(own, "out.log")) == 1);
        fs::rename(&path, own.join(format!("moved-{round}"))).unwrap();
        supervised.ask(0).unwrap();
        supervised.signal(Signal::SIGUSR1);
        let anew = || text(own, "supervisor.log").matches("opened anew").count();
        eventually("it says so", || {
            supervised.lines().iter().filter(|line| line.contains("opened anew")).count() == round
        });
        assert!(anew() <= round);
    }
    supervised.ask(0).unwrap();
    let moved = || (1..=3).map(|round| fs::read_to_string(own.join(format!("moved-{round}"))).unwrap()).collect();
    eventually("every line is somewhere", || {
        let moved: String = moved();
        connections(&moved) + connections(&text(own, "out.log")) == 7
    });
    assert_eq!(connections(&text(own, "out.log")), 1);
}

pub(crate) fn no_files_are_written_where_the_journal_reads() {
    let directory = directory("");
    let journal = directory.path().join("journal");
    let stdout = File::create(&journal).unwrap();
    let identity = stdout.metadata().unwrap();
    let mut command = command(directory.path(), &["log_file_bytes=10000"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", identity.dev(), identity.ino())).stdout(stdout);
    let mut supervisor = command.spawn().unwrap();
    eventually("it is ready", || fs::read_to_string(&journal).unwrap().contains("READY "));
    signal(supervisor.id() as i32, Signal::SIGTERM);
    assert!(supervisor.wait().unwrap().success());
    assert!(!directory.path().join("logs").exists());
}

pub(crate) fn the_last_lines_can_be_read_and_followed() {
    let script = "foreign=for line in 1 2 3 4 5; do echo line $line; done; exec sleep 60";
    let mut supervised = Supervised::start(&[script, "workers=2", "process=redis", "min_uptime_ms=100"]);
    let last = LogsWanted { lines: 3, source: Some("w1".to_owned()), ..NO_LINES };
    assert_eq!(read(&supervised, &last, usize::MAX), ["w1| line 3", "w1| line 4", "w1| line 5"]);
    let redis = LogsWanted { lines: 100, source: Some("redis".to_owned()), ..NO_LINES };
    assert_eq!(read(&supervised, &redis, usize::MAX), ["redis| process starts"]);

    let follow = LogsWanted { lines: 1, follow: true, source: Some("supervisor".to_owned()), ..NO_LINES };
    let mut followed = BufReader::new(supervised.client().logs(&follow).unwrap().unwrap()).lines();
    assert!(followed.next().unwrap().unwrap().starts_with("supervisor| 2"));
    signal(supervised.worker_pid(0).unwrap(), Signal::SIGKILL);
    let told = followed.map(Result::unwrap).find(|line| line.contains("w0"));
    assert!(told.unwrap().contains("SIGKILL"));

    let everything = LogsWanted { follow: true, ..NO_LINES };
    let followed = supervised.client().logs(&everything).unwrap().unwrap();
    supervised.signal(Signal::SIGTERM);
    let last = BufReader::new(followed).lines().map_while(Result::ok).last();
    assert!(last.unwrap().ends_with("everything has ended"), "the connection ends with the supervisor's last line");
    assert_eq!(supervised.ends(Duration::from_secs(5)).code(), Some(0));
}

pub(crate) fn lines_can_be_read_as_json_and_a_stranger_is_refused() {
    let script = "foreign=echo plain; echo '{\"level\":\"info\"}' >&2; printf 'no \\377 text\\n'; exec sleep 60";
    let supervised = Supervised::start_unread(directory(""), &[script, "workers=1", "min_uptime_ms=100"]);
    let wanted = LogsWanted { lines: 10, json: true, source: Some("w0".to_owned()), ..NO_LINES };
    let lines: Vec<Value> =
        read(&supervised, &wanted, 10).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |part: &str| lines.iter().find(|line| line.to_string().contains(part)).unwrap();
    assert_eq!((&line("plain")["line"], &line("plain")["stream"]), (&"plain".into(), &"stdout".into()));
    assert_eq!((&line("info")["message"]["level"], &line("info")["stream"]), (&"info".into(), &"stderr".into()));
    assert_eq!(line("text")["line"], "no \u{fffd} text");
    assert!(lines.iter().all(|line| line["worker"] == "w0" && line["generation"] == 1));

    let own = LogsWanted { lines: 1, json: true, source: Some("supervisor".to_owned()), ..NO_LINES };
    let own: Value = serde_json::from_str(&read(&supervised, &own, 1)[0]).unwrap();
    assert_eq!((&own["process"], &own["pid"]), (&"supervisor".into(), &supervised.pid().into()));

    let stranger = LogsWanted { lines: 1, source: Some("w7".to_owned()), ..NO_LINES };
    let refusal = supervised.client().logs(&stranger).unwrap().map(drop).unwrap_err();
    assert!(refusal.message.contains("w7"), "{refusal:?}");
}

pub(crate) fn a_reader_that_never_reads_delays_nobody_and_is_told_what_it_has_missed() {
    let supervised = Supervised::start_in(directory("chatter"), &["workers=2"]);
    let follow = LogsWanted { lines: 10, follow: true, ..NO_LINES };
    let stalled: Vec<_> = (0..5).map(|_| supervised.client().logs(&follow).unwrap().unwrap()).collect();
    // Others go on to read, which a writer that waits would keep them from.
    let mut other = BufReader::new(supervised.client().logs(&follow).unwrap().unwrap()).lines();
    let before = supervised.worker_pid(1).unwrap();
    signal(before, Signal::SIGKILL);
    within(Duration::from_secs(2), "the replacement is ready", || supervised.replacement(1, before).is_some());
    assert!(other.by_ref().take(20_000).all(|line| line.is_ok()));
    let told = BufReader::new(stalled.into_iter().next().unwrap())
        .lines()
        .map(Result::unwrap)
        .find(|line| line.contains(" lines were dropped"));
    assert!(told.unwrap().starts_with("supervisor| "));
}
