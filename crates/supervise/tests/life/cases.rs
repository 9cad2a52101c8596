//! What must be true of a running supervisor.

use std::any::type_name;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use supervise::control::{Reply, Request};
use supervise::status::State;

use crate::activation;
use crate::harness::{
    Supervised, ask, command, directory, eventually, is_alive, log_writer_of, own_memory_bytes, set_mode, signal,
    within,
};
use crate::logs;

const SECONDS: Duration = Duration::from_secs(10);

/// A test with its name.
pub(crate) type Case = (&'static str, Box<dyn Fn()>);

/// Every test.
pub(crate) fn all() -> Vec<Case> {
    vec![
        named(all_workers_serve_and_status_tells_everything_about_them),
        named(a_worker_killed_ten_times_is_back_each_time_within_half_a_second_and_nobody_is_refused),
        named(nobody_is_refused_when_all_workers_are_killed),
        named(a_stop_lets_requests_in_flight_finish_and_ends_with_code_0),
        named(an_idle_supervisor_ends_within_a_second_and_a_half),
        named(a_worker_that_ignores_its_drain_is_killed_and_the_exit_code_tells),
        named(a_second_interrupt_ends_everything_at_once),
        named(other_signals_change_nothing),
        named(a_terminal_that_goes_away_ends_the_service_it_was_started_in),
        named(a_stop_by_command_reports_progress_and_returns_when_all_is_over),
        named(a_killed_supervisor_leaves_no_worker_even_if_they_hang),
        named(a_second_supervisor_is_told_who_has_the_port_while_orphans_drain),
        named(two_supervisors_cannot_have_one_control_socket),
        named(nobody_reading_the_output_does_not_delay_a_replacement),
        named(a_killed_log_writer_is_replaced_and_loses_no_worker),
        named(output_is_prefixed_and_long_lines_are_split),
        named(a_client_that_never_reads_and_many_others_delay_nothing),
        named(strange_bytes_on_the_control_socket_harm_nobody),
        named(a_program_that_refuses_its_configuration_ends_the_supervisor_with_78),
        named(a_worker_that_is_never_ready_is_killed_and_tried_again),
        named(a_replaced_executable_is_not_picked_up_by_a_restart),
        named(a_process_starts_before_the_workers_and_ends_after_them),
        named(a_foreign_program_is_ready_after_its_minimum_uptime_and_gets_its_socket),
        named(what_a_dead_worker_left_behind_ends_with_it),
        named(workers_run_as_the_chosen_user),
        named(logs::every_stream_has_a_private_file),
        named(logs::four_talkative_workers_lose_no_line_over_many_rotations),
        named(logs::a_full_disk_holds_up_nobody_and_costs_lines_that_are_counted),
        named(logs::files_that_were_moved_away_are_opened_anew_without_losing_a_line),
        named(logs::no_files_are_written_where_the_journal_reads),
        named(logs::the_last_lines_can_be_read_and_followed),
        named(logs::lines_can_be_read_as_json_and_a_stranger_is_refused),
        named(logs::a_reader_that_never_reads_delays_nobody_and_is_told_what_it_has_missed),
        named(activation::sockets_are_taken_over_in_order_with_their_names_and_addresses),
        named(activation::what_the_service_manager_says_to_the_supervisor_is_not_passed_on),
        named(activation::the_service_manager_hears_of_readiness_only_when_all_are_ready),
        named(activation::a_socket_that_cannot_be_served_at_is_refused_with_its_name_and_78),
    ]
    .into_iter()
    .chain(crate::changes::all())
    .chain(crate::upgrade::all())
    .chain(crate::burdens::all())
    .collect()
}

pub(crate) fn named<F: Fn() + 'static>(test: F) -> Case {
    let path = type_name::<F>();
    (path.rsplit("::").next().unwrap_or(path), Box::new(test))
}

/// Half a second, but for one moment in which a busy machine gives these processes no time.
fn assert_quick(replacements: &[Duration]) {
    println!("replacements took {replacements:.0?}");
    let late = replacements.iter().filter(|time| **time > Duration::from_millis(500)).count();
    assert!(late <= 1 && replacements.iter().all(|time| *time < Duration::from_secs(2)), "{replacements:?}");
}

fn all_workers_serve_and_status_tells_everything_about_them() {
    let supervised = Supervised::start(&["workers=3"]);
    let mut seen = BTreeSet::new();
    eventually("all workers answer", || {
        seen.insert(supervised.ask(0).unwrap());
        seen.len() == 3
    });
    eventually("the workers have been sampled twice", || {
        supervised.status().workers.iter().all(|worker| worker.cpu_percent.is_some())
    });
    let status = supervised.status();
    assert_eq!(status.supervisor.pid, supervised.pid());
    assert_eq!(status.supervisor.listen.join(" "), supervised.address);
    let json = serde_json::to_value(&status).unwrap();
    let keys =
        |value: &serde_json::Value| value.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&json), "dependencies host processes schema supervisor workers");
    assert_eq!(json["schema"], "bellwether.status/v1");
    assert_eq!(keys(&json["supervisor"]), "generation listen pid state uptime_seconds version workers_wanted");
    assert_eq!(json["supervisor"]["state"], "running");
    let worker = &json["workers"][2];
    assert_eq!(
        keys(worker),
        "connections cpu_percent generation id last_exit loop_lag_seconds p99_seconds pid reason requests_per_second \
         requests_total restarts rss_bytes state uptime_seconds"
    );
    assert_eq!((&worker["state"], &worker["id"]), (&"ready".into(), &2.into()));
    assert_eq!((&worker["connections"], &worker["requests_total"]), (&3.into(), &7.into()));
    assert_eq!((&worker["p99_seconds"], &worker["last_exit"]), (&0.25.into(), &serde_json::Value::Null));
    assert!(worker["rss_bytes"].as_u64().unwrap() > 100_000);
}

fn a_worker_killed_ten_times_is_back_each_time_within_half_a_second_and_nobody_is_refused() {
    let supervised = Supervised::start(&["workers=2"]);
    let descriptors = supervised.open_descriptors();
    let (ended, refused) = (AtomicBool::new(false), AtomicU32::new(0));
    let times = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let refusal = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
                if supervised.ask(0).is_err_and(|error| refusal(&error)) {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let times = supervised.replacement_times(0, 10);
        // Before anything is asserted: the scope waits for its thread.
        ended.store(true, Ordering::Relaxed);
        times
    });
    assert_quick(&times);
    assert_eq!(refused.load(Ordering::Relaxed), 0);
    eventually("no descriptor has leaked", || supervised.open_descriptors() == descriptors);
    let worker = &supervised.status().workers[0];
    assert_eq!(worker.restarts, 10);
    let last_exit = worker.last_exit.as_ref().unwrap();
    assert_eq!((last_exit.code, last_exit.signal), (None, Some(9)));
    assert!(last_exit.at.ends_with('Z') && last_exit.at.contains('T'), "{}", last_exit.at);
}

fn nobody_is_refused_when_all_workers_are_killed() {
    let supervised = Supervised::start(&["workers=4"]);
    for worker in supervised.status().workers {
        signal(worker.pid.unwrap(), Signal::SIGKILL);
    }
    thread::scope(|scope| {
        let clients: Vec<_> = (0..40).map(|_| scope.spawn(|| supervised.ask(0))).collect();
        for client in clients {
            client.join().unwrap().expect("a connection made without any worker waits for one");
        }
    });
}

fn a_stop_lets_requests_in_flight_finish_and_ends_with_code_0() {
    let mut supervised = Supervised::start(&["workers=2"]);
    let address = supervised.address.clone();
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let address = address.clone();
            thread::spawn(move || ask(&address, Duration::from_millis(1500)))
        })
        .collect();
    eventually("all requests are in flight", || {
        supervised.lines().iter().filter(|line| line.ends_with("| a connection")).count() == slow.len()
    });
    supervised.signal(Signal::SIGTERM);
    eventually("the shards are closed while requests are in flight", || {
        ask(&address, Duration::ZERO).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    for request in slow {
        request.join().unwrap().expect("a request in flight is finished");
    }
    assert_eq!(supervised.ends(SECONDS).code(), Some(0));
    assert!(!supervised.socket().exists());
}

fn an_idle_supervisor_ends_within_a_second_and_a_half() {
    for which in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT] {
        let mut supervised = Supervised::start(&["process=redis"]);
        let pids: Vec<_> = supervised.status().workers.iter().map(|worker| worker.pid.unwrap()).collect();
        supervised.signal(which);
        assert_eq!(supervised.ends(Duration::from_millis(1500)).code(), Some(0), "{which}");
        assert!(pids.into_iter().all(|pid| !is_alive(pid)));
    }
}

fn a_worker_that_ignores_its_drain_is_killed_and_the_exit_code_tells() {
    let mut supervised = Supervised::start_in(directory("ignore-term"), &["kill_timeout_ms=700"]);
    let started = Instant::now();
    supervised.signal(Signal::SIGTERM);
    assert_eq!(supervised.ends(SECONDS).code(), Some(1));
    let took = started.elapsed();
    assert!((700..1500).contains(&took.as_millis()), "{took:?}");
}

fn a_second_interrupt_ends_everything_at_once() {
    let mut supervised = Supervised::start_in(directory("ignore-term"), &["kill_timeout_ms=60000"]);
    supervised.signal(Signal::SIGINT);
    eventually("it drains", || supervised.status().workers.iter().all(|worker| worker.state == State::Draining));
    supervised.signal(Signal::SIGINT);
    assert_eq!(supervised.ends(Duration::from_secs(2)).code(), Some(1));
}

fn other_signals_change_nothing() {
    let supervised = Supervised::start(&[]);
    let before = supervised.status();
    for other in [Signal::SIGUSR1, Signal::SIGWINCH, Signal::SIGPIPE] {
        supervised.signal(other);
    }
    eventually("it says so", || supervised.line("SIGUSR1 changes nothing").is_some());
    let after = supervised.status();
    let pids = |status: &supervise::status::Status| status.workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    assert_eq!(pids(&before), pids(&after));
}

fn a_terminal_that_goes_away_ends_the_service_it_was_started_in() {
    let directory = directory("");
    let socket = directory.path().join("supervisor.sock");
    let command = command(directory.path(), &["workers=1"]);
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_str().unwrap()).collect();
    let log = directory.path().join("typescript");
    // Whoever holds the other end of the terminal, as a remote shell does.
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--command", &words.join(" ")]).arg(&log).stdout(std::process::Stdio::null());
    let mut terminal = terminal.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let ready = || {
        supervise::control::Client::connect(&socket)
            .is_ok_and(|mut client| client.status().is_ok_and(|status| status.workers[0].state == State::Ready))
    };
    eventually("the worker is ready", ready);
    let pid = supervise::control::Client::connect(&socket).unwrap().ping().unwrap().0;
    // With a terminal that is still there it is the usual request for a reload.
    signal(pid, Signal::SIGHUP);
    let generation = || supervise::control::Client::connect(&socket).unwrap().status().unwrap().supervisor.generation;
    eventually("it reloads", || generation() == 2);
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    within(SECONDS, "the supervisor ends", || !is_alive(pid));
    assert!(!socket.exists());
}

fn a_stop_by_command_reports_progress_and_returns_when_all_is_over() {
    let mut supervised = Supervised::start(&[]);
    let replies: Vec<_> =
        supervised.client().command(&Request::Stop { now: false }).unwrap().map(Result::unwrap).collect();
    assert!(!is_alive(supervised.pid()), "the command returned before the supervisor was gone");
    assert_eq!(replies.last(), Some(&Reply::Done));
    assert!(replies.iter().any(|reply| matches!(reply, Reply::Progress(text) if text.contains("w0"))), "{replies:?}");
    assert_eq!(supervised.ends(SECONDS).code(), Some(0));

    let mut supervised = Supervised::start_in(directory("ignore-term"), &["kill_timeout_ms=60000"]);
    let last = supervised.client().command(&Request::Stop { now: true }).unwrap().last();
    assert!(matches!(last, Some(Ok(Reply::Failed { code: 1, .. }))), "{last:?}");
    assert_eq!(supervised.ends(SECONDS).code(), Some(1));
}

fn a_killed_supervisor_leaves_no_worker_even_if_they_hang() {
    for mode in ["", "ignore-term"] {
        let mut supervised = Supervised::start_in(directory(mode), &["process=redis", "kill_timeout_ms=1000"]);
        let status = supervised.status();
        let workers = status.workers.iter().filter_map(|worker| worker.pid);
        let mut pids: Vec<_> = workers.chain(status.processes.iter().filter_map(|process| process.pid)).collect();
        assert_eq!(pids.len(), 3);
        pids.push(log_writer_of(supervised.pid()));
        supervised.signal(Signal::SIGKILL);
        supervised.ends(SECONDS);
        within(Duration::from_secs(2), "all are gone", || pids.iter().all(|pid| !is_alive(*pid)));
    }
}

fn a_second_supervisor_is_told_who_has_the_port_while_orphans_drain() {
    let mut supervised = Supervised::start_in(directory("ignore-term"), &["kill_timeout_ms=3000"]);
    supervised.signal(Signal::SIGKILL);
    supervised.ends(SECONDS);
    let listen = format!("listen={}", supervised.address);
    let second = command(supervised.directory.path(), &[&listen]).output().unwrap();
    assert_eq!(second.status.code(), Some(73));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains(&supervised.address) && message.contains("test-w"), "{message}");
}

fn two_supervisors_cannot_have_one_control_socket() {
    let supervised = Supervised::start(&[]);
    let mode = fs::metadata(supervised.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = command(supervised.directory.path(), &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(75));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains(&format!("pid {}", supervised.pid())), "{message}");
    assert_eq!(supervised.client().ping().unwrap().0, supervised.pid(), "the first one still answers");
}

fn nobody_reading_the_output_does_not_delay_a_replacement() {
    let mut supervised = Supervised::start_unread(directory("chatter"), &["workers=2"]);
    // The pipe is full then, and so, nearly, are the 4 MiB that the log-writer keeps.
    let log_writer = log_writer_of(supervised.pid());
    eventually("the log-writer keeps what nobody reads", || own_memory_bytes(log_writer) > 7 << 19);
    assert_quick(&supervised.replacement_times(0, 3));
    let mut some = vec![0; 6 << 20];
    let mut output = supervised.unread_output();
    output.read_exact(&mut some).unwrap();
    assert!(String::from_utf8_lossy(&some).contains(" lines were dropped"), "lost lines are not counted");
    supervised.signal(Signal::SIGINT);
    supervised.ends(Duration::from_secs(3));
}

fn a_killed_log_writer_is_replaced_and_loses_no_worker() {
    let supervised = Supervised::start(&["workers=1"]);
    let worker = supervised.worker_pid(0).unwrap();
    signal(log_writer_of(supervised.pid()), Signal::SIGKILL);
    eventually("a new one writes", || supervised.line("the log-writer had ended").is_some());
    assert_eq!(supervised.worker_pid(0), Some(worker));
    supervised.ask(0).unwrap();
}

fn output_is_prefixed_and_long_lines_are_split() {
    let supervised = Supervised::start_in(directory("long-line"), &["workers=2", "process=redis"]);
    for line in ["w0| settings=the settings", "w1| settings=", "redis| process starts", "supervisor| "] {
        eventually(line, || supervised.line(line).is_some_and(|found| found.starts_with(line)));
    }
    let pieces = || supervised.lines().iter().filter(|line| line.starts_with("w0| xx")).map(String::len).collect();
    let split: Vec<usize> = [16_384, 16_384, 40_000 - 32_768].map(|length| "w0| ".len() + length).to_vec();
    eventually("the long line is there", || {
        let pieces: Vec<usize> = pieces();
        pieces == split
    });
}

fn a_client_that_never_reads_and_many_others_delay_nothing() {
    let supervised = Supervised::start(&["workers=2"]);
    let mut stalled = UnixStream::connect(supervised.socket()).unwrap();
    stalled.set_nonblocking(true).unwrap();
    let mut flood = supervise::frame::greeting();
    for _ in 0..5_000 {
        flood.extend(supervise::frame::encode_json(&Request::Status));
    }
    let _ = stalled.write(&flood);
    let _idle: Vec<_> = (0..100).map(|_| supervised.client()).collect();
    let before = supervised.worker_pid(1).unwrap();
    signal(before, Signal::SIGKILL);
    within(Duration::from_secs(2), "the replacement is ready", || supervised.replacement(1, before).is_some());
    let mut client = supervised.client();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let started = Instant::now();
            client.status().unwrap();
            started.elapsed()
        })
        .collect();
    times.sort();
    println!("status with 100 clients: median {:.1?}, p99 {:.1?}", times[100], times[197]);
    assert!(times[197] < Duration::from_millis(50), "{:?}", times[197]);
}

fn strange_bytes_on_the_control_socket_harm_nobody() {
    let supervised = Supervised::start(&["workers=1"]);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[2, 0, 0, 0, 9, 9], &[1, 0, 0, 0, 1]] {
        let mut stream = UnixStream::connect(supervised.socket()).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.set_read_timeout(Some(SECONDS)).unwrap();
        // The greeting, then the end.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() <= supervise::frame::greeting().len());
    }
    assert_eq!(supervised.client().ping().unwrap().0, supervised.pid());
}

fn a_program_that_refuses_its_configuration_ends_the_supervisor_with_78() {
    let mut supervised = Supervised::launch(directory("exit-78"), &["workers=2", "process=redis"]);
    assert_eq!(supervised.ends(SECONDS).code(), Some(78));
}

fn a_worker_that_is_never_ready_is_killed_and_tried_again() {
    let directory = directory("");
    set_mode(directory.path(), "mode-1", "never-ready");
    let supervised = Supervised::launch(directory, &["ready_timeout_ms=400"]);
    eventually("it is killed", || supervised.line("w1").is_some() && supervised.line("is not ready after").is_some());
    set_mode(supervised.directory.path(), "mode-1", "");
    eventually("it is ready in the end", || supervised.line("READY ").is_some());
    assert!(supervised.status().workers[1].restarts > 0);
    assert_eq!(supervised.status().workers[0].restarts, 0);
}

fn a_replaced_executable_is_not_picked_up_by_a_restart() {
    let directory = directory("");
    let executable = directory.path().join("worker");
    fs::copy(std::env::current_exe().unwrap(), &executable).unwrap();
    let word = format!("executable={}", executable.display());
    let supervised = Supervised::start_in(directory, &["workers=1", &word]);
    let before = supervised.worker_pid(0).unwrap();
    fs::remove_file(&executable).unwrap();
    fs::write(&executable, "half an executa").unwrap();
    signal(before, Signal::SIGKILL);
    within(Duration::from_secs(2), "the replacement is ready", || supervised.replacement(0, before).is_some());
    supervised.ask(0).unwrap();
}

fn a_process_starts_before_the_workers_and_ends_after_them() {
    let mut supervised = Supervised::start(&["workers=2", "process=redis"]);
    let redis = &supervised.status().processes[0];
    assert_eq!((redis.name.as_str(), redis.state, redis.restarts), ("redis", State::Ready, 0));
    let before = redis.pid.unwrap();
    signal(before, Signal::SIGKILL);
    eventually("it is back", || {
        let redis = &supervised.status().processes[0];
        redis.state == State::Ready && redis.restarts == 1
    });
    supervised.signal(Signal::SIGTERM);
    assert_eq!(supervised.ends(SECONDS).code(), Some(0));
    eventually("the last line is there", || supervised.line("everything has ended").is_some());
    let lines = supervised.lines();
    let first = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}"));
    let last = |part: &str| lines.iter().rposition(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}"));
    assert!(first("redis (pid") < first("w0 (pid"), "{lines:#?}");
    assert!(last("redis (pid") > last("w0 (pid") && last("redis (pid") > last("w1 (pid"), "{lines:#?}");
}

fn a_foreign_program_is_ready_after_its_minimum_uptime_and_gets_its_socket() {
    // `test` is part of the shell, and no pipe of a substitution is open while it looks for a fourth descriptor.
    let script = "foreign=test -e /proc/self/fd/4 || more=no; kind=$(readlink /proc/$$/fd/3 | cut -d: -f1); \
                  echo fds=$LISTEN_FDS names=$LISTEN_FDNAMES self=$((LISTEN_PID - $$)) id=$WORKER_ID \
                  channel=$BELLWETHER_CHANNEL_FD kind=$kind more=$more; exec sleep 60";
    let started = Instant::now();
    let mut supervised = Supervised::start(&[script, "workers=2", "min_uptime_ms=400"]);
    assert!(started.elapsed() >= Duration::from_millis(400));
    let expected = "w1| fds=1 names=http self=0 id=1 channel= kind=socket more=no";
    eventually("it tells what it got", || supervised.lines().iter().any(|line| line == expected));
    supervised.signal(Signal::SIGTERM);
    assert_eq!(supervised.ends(SECONDS).code(), Some(0), "to die of SIGTERM is a clean end");
}

fn what_a_dead_worker_left_behind_ends_with_it() {
    let script = "foreign=sleep 61 & echo left=$!; exec sleep 60";
    let supervised = Supervised::start(&[script, "workers=1", "min_uptime_ms=100"]);
    eventually("it tells what it leaves", || supervised.line("left=").is_some());
    let left: i32 = supervised.line("left=").unwrap().split('=').nth(1).unwrap().parse().unwrap();
    assert!(is_alive(left));
    signal(supervised.worker_pid(0).unwrap(), Signal::SIGKILL);
    eventually("it is gone", || !is_alive(left));
}

fn workers_run_as_the_chosen_user() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root can start workers as another user");
        return;
    }
    let script = "foreign=grep -E '^(Uid|Gid|Groups)' /proc/self/status; exec sleep 60";
    let words = [script, "workers=1", "min_uptime_ms=300", "user=nobody", "process=helper"];
    let mut supervised = Supervised::start(&words);
    let helper = supervised.status().processes[0].pid.unwrap();
    assert_eq!(fs::metadata(format!("/proc/{helper}")).unwrap().uid(), 65534, "a process is a kind of worker");
    eventually("it tells who it is", || supervised.line("Uid:\t65534\t65534\t65534\t65534").is_some());
    assert!(supervised.line("Gid:\t65534").is_some());
    let worker = supervised.worker_pid(0).unwrap();
    supervised.signal(Signal::SIGKILL);
    supervised.ends(SECONDS);
    eventually("it hears of its supervisor's death though it changed its user", || !is_alive(worker));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("listen={}", taken.local_addr().unwrap());
    let other = tempfile::tempdir().unwrap();
    let refused = command(other.path(), &["user=nobody-at-all", &listen]).output().unwrap();
    assert_eq!(refused.status.code(), Some(78), "an unknown user is a wrong configuration");
}
