//! Changes to a running fleet: reloads, other numbers, restarts, and workers that are replaced because they are not well.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use supervise::control::{Client, Reply, Request, Scale};
use supervise::status::{State, SupervisorState};

use crate::cases::{Case, named};
use crate::harness::{Supervised, ask, directory, eventually, is_alive, own_memory_bytes, set_mode, signal, within};

const RELOAD: Request = Request::Reload { binary: None };

pub(crate) fn all() -> Vec<Case> {
    vec![
        named(a_reload_replaces_every_worker_and_loses_no_request),
        named(a_generation_that_is_no_good_leaves_everything_as_it_was),
        named(a_reload_with_an_invalid_configuration_changes_nothing),
        named(what_is_no_matter_of_workers_waits_for_the_next_start),
        named(new_addresses_are_served_after_a_reload_and_a_taken_one_changes_nothing),
        named(a_second_reload_is_refused_and_a_storm_of_signals_is_one_more),
        named(a_reload_may_name_another_executable),
        named(reloads_leave_no_descriptor_no_memory_and_no_thread_behind),
        named(an_idle_supervisor_uses_less_than_a_thousandth_of_a_processor),
        named(scaling_up_and_down_under_load_loses_nothing),
        named(signals_scale_by_one_but_never_to_none),
        named(a_number_for_which_descriptors_do_not_suffice_changes_nothing),
        named(a_restart_replaces_one_worker_or_all),
        named(a_slot_that_fails_five_times_is_broken_and_its_siblings_serve),
        named(a_stopped_worker_is_aborted_and_replaced_and_its_queue_is_served),
        named(a_stopped_and_continued_supervisor_aborts_nobody),
        named(a_worker_that_leaks_is_replaced_with_its_successor_ready_first),
        named(an_old_worker_is_replaced_and_so_are_all_when_it_is_time),
        named(every_change_is_told_with_who_asked_for_it),
        named(clients_do_not_delay_the_reaping_of_a_child),
        named(a_worker_that_talks_without_end_keeps_nobody_waiting),
        named(the_first_process_of_a_namespace_reaps_a_thousand_orphans),
        named(workers_are_bound_to_processors_only_when_that_is_wanted),
        named(another_program_takes_the_supervisors_place_and_nobody_notices),
        named(a_program_that_cannot_go_on_has_no_effect),
        named(whoever_waits_for_what_a_stop_prevents_is_told_so),
        named(a_signal_that_comes_while_a_program_takes_over_is_not_lost),
    ]
}

/// Clients that ask again and again, each on a connection of its own, until they are told to stop.
struct Load {
    failed: AtomicU32,
    succeeded: AtomicU32,
    ended: AtomicBool,
}

/// Runs `body` while four clients are busy; none of their requests may fail.
fn under_load<T>(supervised: &Supervised, body: impl FnOnce() -> T) -> T {
    let load = Load { failed: AtomicU32::new(0), succeeded: AtomicU32::new(0), ended: AtomicBool::new(false) };
    let (result, errors) = thread::scope(|scope| {
        let client = || {
            let mut last = None;
            while !load.ended.load(Ordering::Relaxed) {
                match supervised.ask(0) {
                    Ok(_) => load.succeeded.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        last = Some(error);
                        load.failed.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
            last
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        let slow = scope.spawn(|| {
            while !load.ended.load(Ordering::Relaxed) {
                supervised.ask(1_000).expect("a slow request is finished");
            }
        });
        // A panic must not leave the clients running: the scope would wait for them for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        load.ended.store(true, Ordering::Relaxed);
        slow.join().unwrap();
        let errors: Vec<_> = clients.into_iter().filter_map(|client| client.join().unwrap()).collect();
        (result, errors)
    });
    let (failed, succeeded) = (load.failed.into_inner(), load.succeeded.into_inner());
    println!("{succeeded} requests, {failed} failed {errors:?}");
    let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(failed, 0, "{errors:?}");
    assert!(succeeded > 0, "{succeeded}");
    result
}

fn a_reload_replaces_every_worker_and_loses_no_request() {
    let supervised = Supervised::start(&["workers=3"]);
    let before = supervised.workers();
    under_load(&supervised, || {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let (mut fewest, mut saw_reloading) = (usize::MAX, false);
                while !ended.load(Ordering::Relaxed) {
                    let status = supervised.status();
                    fewest = fewest.min(supervised.workers().len());
                    saw_reloading |= status.supervisor.state == SupervisorState::Reloading;
                }
                (fewest, saw_reloading)
            });
            let replies: Vec<_> = (0..3).map(|_| supervised.change(&RELOAD)).collect();
            ended.store(true, Ordering::Relaxed);
            let (fewest, saw_reloading) = watcher.join().unwrap();
            assert_eq!(replies, [Reply::Done, Reply::Done, Reply::Done]);
            assert!(fewest >= 3, "{fewest} workers were ready at a time");
            assert!(saw_reloading);
        });
    });
    let status = supervised.status();
    assert_eq!((status.supervisor.generation, status.supervisor.state), (4, SupervisorState::Running));
    let after: BTreeSet<_> = supervised.workers().into_iter().collect();
    assert!(after.len() == 3 && before.iter().all(|pid| !after.contains(pid)));
    let mut ready = status.workers.iter().filter(|worker| worker.state == State::Ready);
    assert!(ready.all(|worker| worker.restarts == 0 && worker.generation == 4), "{status:?}");
    eventually("the old workers are gone", || before.iter().all(|pid| !is_alive(*pid)));
}

fn a_generation_that_is_no_good_leaves_everything_as_it_was() {
    for (mode, why) in [
        ("exit-78", "exited with code 78"),
        ("exit-101", "exited with code 101"),
        ("never-ready", "was not ready within 500.0ms"),
    ] {
        let supervised = Supervised::start_in(directory(""), &["ready_timeout_ms=500"]);
        let before = supervised.workers();
        set_mode(supervised.directory.path(), "mode", mode);
        let started = Instant::now();
        let reply = under_load(&supervised, || supervised.change(&RELOAD));
        let took = started.elapsed();
        let Reply::Failed { code: 4, message } = &reply else { panic!("{mode}: {reply:?}") };
        assert!(message.contains("w0") && message.contains(why), "{message}");
        assert!(message.contains(&format!("modes={mode}")), "its last words are missing: {message}");
        assert!(took < Duration::from_millis(500 + 1_000 + 1_000), "{mode}: {took:?}");
        assert_eq!(supervised.workers(), before);
        assert_eq!(supervised.status().supervisor.generation, 1);
        set_mode(supervised.directory.path(), "mode", "");
        assert_eq!(supervised.change(&RELOAD), Reply::Done);
        assert_eq!(supervised.status().supervisor.generation, 3, "a number is never given twice");
    }
}

fn a_reload_with_an_invalid_configuration_changes_nothing() {
    let supervised = Supervised::start(&[]);
    let before = supervised.workers();
    fs::write(supervised.directory.path().join("reload"), "wrokers=3").unwrap();
    let reply = supervised.change(&RELOAD);
    assert_eq!(reply, Reply::Failed { code: 78, message: "reload:1: there is no key wrokers".to_owned() });
    supervised.signal(Signal::SIGHUP);
    eventually("the signal's reload fails as loudly", || supervised.line("there is no key wrokers").is_some());
    assert_eq!(supervised.workers(), before);
    fs::write(supervised.directory.path().join("reload"), "workers=3").unwrap();
    assert_eq!(supervised.change(&RELOAD), Reply::Done);
    eventually("the configured number applies", || supervised.workers().len() == 3);
    assert_eq!(supervised.change(&Request::Scale(Scale::To(1))), Reply::Done);
    assert_eq!(supervised.change(&RELOAD), Reply::Done);
    assert_eq!(supervised.status().supervisor.workers_wanted, 1, "it was not configured anew");
}

fn what_is_no_matter_of_workers_waits_for_the_next_start() {
    let supervised = Supervised::start(&["process=redis"]);
    let before = supervised.status().processes;
    fs::write(supervised.directory.path().join("reload"), "process=more").unwrap();
    assert_eq!(supervised.change(&RELOAD), Reply::Done);
    assert!(supervised.line("takes effect at the next start only: supervisor.process").is_some());
    let after = supervised.status().processes;
    assert_eq!((after.len(), after[0].pid), (1, before[0].pid));
}

fn new_addresses_are_served_after_a_reload_and_a_taken_one_changes_nothing() {
    let supervised = Supervised::start(&["workers=3"]);
    let file = supervised.directory.path().join("reload");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(&file, format!("listen={}", taken.local_addr().unwrap())).unwrap();
    let reply = supervised.change(&RELOAD);
    assert!(matches!(reply, Reply::Failed { code: 73, .. }), "{reply:?}");
    assert_eq!(supervised.status().supervisor.generation, 1);

    fs::write(&file, "listen=[::1]:0").unwrap();
    assert_eq!(supervised.change(&RELOAD), Reply::Done);
    let listen = supervised.status().supervisor.listen;
    assert_eq!((listen.len(), &listen[0]), (2, &supervised.address));
    let second: std::net::SocketAddr = listen[1].parse().unwrap();
    std::net::TcpStream::connect(second).unwrap();

    fs::write(&file, "").unwrap();
    assert_eq!(supervised.change(&RELOAD), Reply::Done);
    assert_eq!(supervised.status().supervisor.listen.len(), 1);
    eventually("an address that is not configured any more is given up", || {
        std::net::TcpStream::connect(second).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    supervised.ask(0).unwrap();
}

fn a_second_reload_is_refused_and_a_storm_of_signals_is_one_more() {
    let supervised = Supervised::start(&["canary_ms=1000"]);
    thread::scope(|scope| {
        let first = scope.spawn(|| supervised.change(&RELOAD));
        eventually("it has begun", || supervised.status().supervisor.state == SupervisorState::Reloading);
        for request in [RELOAD, Request::Scale(Scale::By(1)), Request::Restart { id: None, hard: false }] {
            let reply = supervised.change(&request);
            assert!(matches!(reply, Reply::Failed { code: 75, .. }), "{request:?}: {reply:?}");
        }
        for _ in 0..1_000 {
            supervised.signal(Signal::SIGHUP);
        }
        assert_eq!(first.join().unwrap(), Reply::Done);
    });
    eventually("one more reload followed", || supervised.status().supervisor.generation == 3);
    eventually("it is over", || supervised.status().supervisor.state == SupervisorState::Running);
    assert_eq!(supervised.lines().iter().filter(|line| line.contains("takes the place of generation")).count(), 2);
}

fn a_reload_may_name_another_executable() {
    let supervised = Supervised::start(&[]);
    let other = supervised.directory.path().join("other");
    fs::copy(std::env::current_exe().unwrap(), &other).unwrap();
    let executes = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(supervised.change(&Request::Reload { binary: Some(other.clone()) }), Reply::Done);
    assert!(supervised.workers().into_iter().all(|pid| executes(pid) == other));
    assert_eq!(supervised.change(&RELOAD), Reply::Done, "it stays the executable");
    assert!(supervised.workers().into_iter().all(|pid| executes(pid) == other));
    let reply = supervised.change(&Request::Reload { binary: Some("/nonexistent/worker".into()) });
    assert!(matches!(reply, Reply::Failed { code: 69, .. }), "{reply:?}");
}

fn reloads_leave_no_descriptor_no_memory_and_no_thread_behind() {
    let reloads = if std::env::var_os("BELLWETHER_LONG").is_some() { 1_000 } else { 100 };
    let supervised = Supervised::start(&["canary_ms=0"]);
    let reload = |times: u32| {
        for _ in 0..times {
            assert_eq!(supervised.change(&RELOAD), Reply::Done);
        }
        let leaving = |state: &State| *state == State::Draining;
        eventually("nothing drains", || !supervised.status().workers.iter().any(|worker| leaving(&worker.state)));
    };
    reload(30);
    let (descriptors, memory) = (supervised.open_descriptors(), own_memory_bytes(supervised.pid()));
    let started = Instant::now();
    reload(reloads);
    println!("{reloads} reloads took {:.1?}", started.elapsed());
    eventually("no descriptor has leaked", || supervised.open_descriptors() <= descriptors);
    let grown = own_memory_bytes(supervised.pid()).saturating_sub(memory);
    assert!(grown <= 1 << 20, "{grown} bytes more");
    assert_eq!(fs::read_dir(format!("/proc/{}/task", supervised.pid())).unwrap().count(), 1);
}

fn an_idle_supervisor_uses_less_than_a_thousandth_of_a_processor() {
    let supervised = Supervised::start(&["foreign=exec sleep 600", "workers=2", "min_uptime_ms=50"]);
    let used = || {
        let statistics = fs::read_to_string(format!("/proc/{}/schedstat", supervised.pid())).unwrap();
        Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
    };
    // The least of three, because a busy machine makes the same work dearer.
    let share = (0..3).map(|_| {
        let (before, begun) = (used(), Instant::now());
        eventually("three seconds are over", || begun.elapsed() >= Duration::from_secs(3));
        (used() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
    });
    let share = share.fold(f64::INFINITY, f64::min);
    println!("{:.3} % of a processor", share * 100.0);
    assert!(share < 0.001, "{:.3} %", share * 100.0);
}

fn scaling_up_and_down_under_load_loses_nothing() {
    let supervised = Supervised::start(&["workers=2"]);
    under_load(&supervised, || {
        for count in [8, 1, 4] {
            let started = Instant::now();
            assert_eq!(supervised.change(&Request::Scale(Scale::To(count))), Reply::Done);
            println!("{count} workers after {:.1?}", started.elapsed());
            assert!(started.elapsed() < Duration::from_secs(1));
            eventually("as many are left as are wanted", || {
                let status = supervised.status();
                status.supervisor.workers_wanted == count && status.workers.len() == count as usize
            });
        }
    });
    for count in [8, 1, 4] {
        eventually("who was there is told", || supervised.line(&format!("w0| one of {count}")).is_some());
    }
    assert_eq!(supervised.change(&RELOAD), Reply::Done);
    assert_eq!(supervised.workers().len(), 4, "the number lasts across a reload");
    let mut seen = BTreeSet::new();
    eventually("all of them get connections", || {
        seen.insert(supervised.ask(0).unwrap());
        seen.len() == 4
    });
}

fn signals_scale_by_one_but_never_to_none() {
    let supervised = Supervised::start(&["workers=1"]);
    supervised.signal(Signal::SIGTTIN);
    eventually("one more", || supervised.workers().len() == 2);
    for _ in 0..3 {
        supervised.signal(Signal::SIGTTOU);
        let wanted = || supervised.status().supervisor.workers_wanted;
        eventually("one fewer", || wanted() == 1);
    }
    eventually("one is left", || supervised.status().workers.len() == 1);
    supervised.ask(0).unwrap();
}

fn a_number_for_which_descriptors_do_not_suffice_changes_nothing() {
    let directory = directory("");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 100 && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
    command.arg("role-supervisor").arg(format!("directory={}", directory.path().display())).arg("workers=2");
    let supervised = Supervised::adopt(directory, command);
    let before = supervised.open_descriptors();
    fs::write(supervised.directory.path().join("reload"), "workers=500").unwrap();
    for request in [Request::Scale(Scale::To(500)), RELOAD] {
        let reply = supervised.change(&request);
        assert!(matches!(reply, Reply::Failed { code: 73, .. }), "{request:?}: {reply:?}");
        eventually("no descriptor is left over", || supervised.open_descriptors() <= before);
    }
    fs::write(supervised.directory.path().join("reload"), "workers=5000").unwrap();
    let reply = supervised.change(&RELOAD);
    assert_eq!(reply, Reply::Failed { code: 78, message: "there are at most 1024 workers".to_owned() });
    let killed = supervised.worker_pid(1).unwrap();
    signal(killed, Signal::SIGKILL);
    within(Duration::from_secs(3), "a killed worker is replaced", || supervised.replacement(1, killed).is_some());
    assert_eq!(supervised.change(&Request::Scale(Scale::To(3))), Reply::Done);
}

fn a_restart_replaces_one_worker_or_all() {
    let supervised = Supervised::start(&["workers=2"]);
    let before = supervised.workers();
    assert_eq!(supervised.change(&Request::Restart { id: Some(1), hard: false }), Reply::Done);
    let between = supervised.workers();
    assert!(between[0] == before[0] && between[1] != before[1]);
    assert_eq!(supervised.change(&Request::Restart { id: None, hard: true }), Reply::Done);
    let after = supervised.workers();
    assert!(after.len() == 2 && after.iter().all(|pid| !between.contains(pid)));
    assert_eq!(supervised.status().supervisor.generation, 1);
    let reply = supervised.change(&Request::Restart { id: Some(9), hard: false });
    assert_eq!(reply, Reply::Failed { code: 1, message: "there is no worker w9".to_owned() });
}

fn a_slot_that_fails_five_times_is_broken_and_its_siblings_serve() {
    let directory = directory("");
    let supervised = Supervised::start_in(directory, &["workers=2"]);
    let sibling = supervised.worker_pid(0).unwrap();
    set_mode(supervised.directory.path(), "mode-1", "exit-3");
    signal(supervised.worker_pid(1).unwrap(), Signal::SIGKILL);
    within(Duration::from_secs(10), "it is broken", || supervised.status().workers[1].state == State::Broken);
    let worker = &supervised.status().workers[1];
    assert!(worker.reason.as_ref().is_some_and(|reason| reason.contains("exited with code 3")), "{worker:?}");
    assert_eq!(supervised.worker_pid(0), Some(sibling));
    for _ in 0..20 {
        assert!(supervised.ask(0).unwrap().starts_with("w0 "));
    }
    set_mode(supervised.directory.path(), "mode-1", "");
    assert_eq!(supervised.change(&Request::Restart { id: Some(1), hard: false }), Reply::Done);
    assert_eq!(supervised.workers().len(), 2);
}

fn a_stopped_worker_is_aborted_and_replaced_and_its_queue_is_served() {
    let supervised = Supervised::start(&["workers=2", "hang_timeout_ms=3000"]);
    let stopped = supervised.worker_pid(0).unwrap();
    signal(stopped, Signal::SIGSTOP);
    // Half of these are queued at the stopped worker's shard.
    let started = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| supervised.ask(0))).collect();
        for client in clients {
            client.join().unwrap().expect("whoever waits at its shard is answered by its successor");
        }
    });
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(supervised.replacement(0, stopped).is_some());
    assert!(supervised.line("is silent and gets no new connections").is_some());
    within(Duration::from_secs(5), "it is killed in the end", || !is_alive(stopped));
    assert_eq!(supervised.status().workers[0].restarts, 1);
}

fn a_stopped_and_continued_supervisor_aborts_nobody() {
    let supervised = Supervised::start(&["workers=2", "hang_timeout_ms=2500"]);
    let before = supervised.workers();
    supervised.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(4));
    supervised.signal(Signal::SIGCONT);
    // Long enough to find somebody silent by what was true before.
    let later = Instant::now() + Duration::from_secs(3);
    eventually("three seconds are over", || Instant::now() >= later);
    assert_eq!(supervised.workers(), before);
}

fn a_worker_that_leaks_is_replaced_with_its_successor_ready_first() {
    let directory = directory("");
    set_mode(directory.path(), "mode-0", "leak");
    let supervised = Supervised::start_in(directory, &["workers=2", "max_memory=157286400"]);
    let leaking = supervised.worker_pid(0).unwrap();
    set_mode(supervised.directory.path(), "mode-0", "");
    under_load(&supervised, || {
        within(Duration::from_secs(8), "it is replaced", || {
            assert!(supervised.workers().len() >= 2, "fewer are ready than are wanted");
            supervised.replacement(0, leaking).is_some()
        });
    });
    assert!(supervised.line("of 150 MiB and is replaced").is_some());
    eventually("it has drained", || !is_alive(leaking));
}

fn an_old_worker_is_replaced_and_so_are_all_when_it_is_time() {
    let supervised = Supervised::start(&["workers=2", "max_age_ms=1000"]);
    let before = supervised.workers();
    under_load(&supervised, || {
        within(Duration::from_secs(5), "both are replaced", || {
            let now = supervised.workers();
            assert!(now.len() >= 2, "fewer are ready than are wanted");
            before.iter().all(|pid| !now.contains(pid))
        });
    });
    if std::env::var_os("BELLWETHER_LONG").is_none() {
        return;
    }
    let supervised = Supervised::start(&["workers=2", "schedule=* * * * *"]);
    let before = supervised.workers();
    within(Duration::from_secs(65), "the next minute brings new workers", || {
        supervised.workers().iter().all(|pid| !before.contains(pid))
    });
    assert!(supervised.line("the schedule asks for new workers").is_some());
}

fn every_change_is_told_with_who_asked_for_it() {
    let supervised = Supervised::start(&[]);
    supervised.client().status().unwrap();
    supervised.change(&Request::Scale(Scale::By(1)));
    let who = format!("audit: uid {} (pid {}) asks for +1 workers", nix::unistd::Uid::effective(), std::process::id());
    eventually("it is told", || supervised.line(&who).is_some());
    assert_eq!(supervised.lines().iter().filter(|line| line.contains("audit:")).count(), 1, "reading is no change");
}

fn clients_do_not_delay_the_reaping_of_a_child() {
    use std::io::Write;
    let supervised = Supervised::start(&["workers=2"]);
    let reaped_after = |pid: i32| {
        let started = Instant::now();
        signal(pid, Signal::SIGKILL);
        while nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok() {
            std::hint::spin_loop();
        }
        started.elapsed()
    };
    let times = |rounds: usize| {
        let mut times: Vec<_> = (0..rounds)
            .map(|_| {
                let before = supervised.worker_pid(1).unwrap();
                let took = reaped_after(before);
                within(Duration::from_secs(5), "it is back", || supervised.replacement(1, before).is_some());
                took
            })
            .collect();
        times.sort();
        times[rounds / 2]
    };
    let ended = AtomicBool::new(false);
    let besides = thread::scope(|scope| {
        let calm = times(9);
        let mut stalled = std::os::unix::net::UnixStream::connect(supervised.socket()).unwrap();
        stalled.set_nonblocking(true).unwrap();
        let mut flood = supervise::frame::greeting();
        (0..5_000).for_each(|_| flood.extend(supervise::frame::encode_json(&Request::Status)));
        let _ = stalled.write(&flood);
        for _ in 0..100 {
            let mut client = supervised.client();
            let ended = &ended;
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    client.status().unwrap();
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
        // The least of three medians, because others may want the processors, too.
        let busy = (0..3).map(|_| times(9)).min().unwrap();
        ended.store(true, Ordering::Relaxed);
        println!("reaped after {calm:.1?}, with 100 clients after {busy:.1?}");
        busy.saturating_sub(calm)
    });
    assert!(besides < Duration::from_millis(10), "{besides:?} later");
}

fn a_worker_that_talks_without_end_keeps_nobody_waiting() {
    let directory = directory("");
    set_mode(directory.path(), "mode-0", "flood");
    let supervised = Supervised::start_in(directory, &["workers=2"]);
    let mut times: Vec<_> = (0..100)
        .map(|_| {
            let started = Instant::now();
            supervised.status();
            started.elapsed()
        })
        .collect();
    times.sort();
    println!("status took {:.1?} at the median and {:.1?} at most beside a flood", times[50], times[99]);
    assert!(times[50] < Duration::from_millis(50), "{:?}", times[50]);
    let sibling = supervised.worker_pid(1).unwrap();
    signal(sibling, Signal::SIGKILL);
    within(Duration::from_secs(3), "its sibling is replaced", || supervised.replacement(1, sibling).is_some());
    let memory = own_memory_bytes(supervised.pid());
    assert!(memory < 64 << 20, "{memory} bytes");
    assert_eq!(supervised.workers().len(), 2, "the talkative one is alive");
}

fn the_first_process_of_a_namespace_reaps_a_thousand_orphans() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root can make a namespace of processes");
        return;
    }
    let directory = directory("");
    set_mode(directory.path(), "mode-0", "orphans");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(std::env::current_exe().unwrap());
    command.arg("role-supervisor").arg(format!("directory={}", directory.path().display())).arg("workers=2");
    command.process_group(0);
    let supervised = Supervised::adopt(directory, command);
    eventually("all orphans were left", || supervised.line("all orphans were left").is_some());
    eventually("both are ready", || supervised.workers().len() == 2);
    let status = supervised.status();
    assert_eq!(status.supervisor.pid, 1);
    assert!(status.workers.iter().all(|worker| worker.restarts == 0 && worker.last_exit.is_none()), "{status:?}");
    let inside = supervised.child_of_starter();
    let zombies = || {
        let children = fs::read_to_string(format!("/proc/{inside}/task/{inside}/children")).unwrap();
        children.split_whitespace().filter(|pid| !is_alive(pid.parse().unwrap())).count()
    };
    eventually("no zombie is left", || zombies() == 0);
    assert!(ask(&supervised.address, Duration::ZERO).is_ok());
}

fn workers_are_bound_to_processors_only_when_that_is_wanted() {
    let allowed = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t").map(str::to_owned)).unwrap()
    };
    let own = allowed(std::process::id() as i32);
    let supervised = Supervised::start(&["workers=2"]);
    assert!(supervised.workers().into_iter().all(|pid| allowed(pid) == own));
    let supervised = Supervised::start(&["workers=2", "cpu_affinity=yes"]);
    let bound: Vec<_> = supervised.workers().into_iter().map(allowed).collect();
    assert!(bound.iter().all(|cpu| cpu.parse::<u32>().is_ok()), "{bound:?}");
    let processors = std::thread::available_parallelism().unwrap().get();
    assert!(processors == 1 || bound[0] != bound[1], "{bound:?}");
    assert_eq!(allowed(supervised.pid()), own, "the supervisor itself is not bound");
}

/// A supervisor whose program is a file of its own, so that it can be replaced.
fn with_own_program(words: &[&str]) -> (Supervised, std::path::PathBuf) {
    let directory = directory("");
    let program = directory.path().join("supervisor");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command.arg("role-supervisor").arg(format!("directory={}", directory.path().display())).args(words);
    (Supervised::adopt(directory, command), program)
}

/// Puts another file in the place of a program, as an installation does.
fn install(program: &std::path::Path, content: &[u8]) {
    let new = program.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

fn another_program_takes_the_supervisors_place_and_nobody_notices() {
    let (mut supervised, program) = with_own_program(&["workers=2", "process=redis"]);
    supervised.change(&Request::Scale(Scale::To(3)));
    let (workers, sockets) = (supervised.workers(), supervised.sockets());
    let redis = supervised.status().processes[0].pid;
    install(&program, &fs::read(std::env::current_exe().unwrap()).unwrap());
    let descriptors = supervised.open_descriptors();
    under_load(&supervised, || {
        assert_eq!(supervised.change(&Request::Upgrade), Reply::Done);
        supervised.signal(Signal::SIGUSR2);
        eventually("the signal does the same", || {
            supervised.lines().iter().filter(|line| line.contains("goes on in the place of")).count() == 2
        });
    });
    let status = supervised.status();
    assert_eq!(status.supervisor.version, "the next release");
    assert_eq!((status.supervisor.pid, status.supervisor.workers_wanted), (supervised.pid(), 3));
    assert_eq!((supervised.workers(), status.processes[0].pid), (workers.clone(), redis), "all are kept");
    assert!(status.workers.iter().all(|worker| worker.connections == Some(3)), "what they told is known: {status:?}");
    let lost: Vec<_> = sockets.difference(&supervised.sockets()).cloned().collect();
    // The signal pipe is the program's own, and clients come and go.
    assert!(lost.len() <= 4, "{lost:?} of {sockets:?}");
    eventually("no descriptor has leaked", || supervised.open_descriptors() <= descriptors);

    signal(workers[1], Signal::SIGKILL);
    within(Duration::from_secs(2), "a killed worker is replaced", || supervised.replacement(1, workers[1]).is_some());
    assert_eq!(supervised.change(&RELOAD), Reply::Done);
    assert_eq!(supervised.workers().len(), 3);
    eventually("output is still captured", || {
        supervised.lines().iter().filter(|line| line.starts_with("w2| ")).count() > 1
    });
    supervised.signal(Signal::SIGTERM);
    assert_eq!(supervised.ends(Duration::from_secs(10)).code(), Some(0));
    assert!(!supervised.socket().exists());
}

fn a_program_that_cannot_go_on_has_no_effect() {
    let (supervised, program) = with_own_program(&["workers=2"]);
    let workers = supervised.workers();
    let bad: [(&[u8], &str); 3] = [
        (b"no program at all", "exited with code 127 when it was tried"),
        (b"#!/bin/sh\necho this release is broken >&2\nexit 78\n", "exited with code 78 when it was tried"),
        (b"#!/bin/sh\nexec sleep 60\n", "was ended by signal 9 (SIGKILL) when it was tried"),
    ];
    for (content, why) in bad {
        install(&program, content);
        let reply = supervised.change(&Request::Upgrade);
        let Reply::Failed { code: 1, message } = &reply else { panic!("{reply:?}") };
        assert!(message.contains(why) && message.ends_with("nothing has changed"), "{message}");
        assert_eq!(supervised.workers(), workers);
        supervised.ask(0).unwrap();
    }
    eventually("what it said is in the log", || supervised.line("upgrade| this release is broken").is_some());

    let directory = directory("never-ready");
    let starting = Supervised::launch(directory, &[]);
    eventually("it answers", || Client::connect(&starting.socket()).is_ok());
    let message = "not now: the workers have not all been ready yet".to_owned();
    assert_eq!(starting.change(&Request::Upgrade), Reply::Failed { code: 75, message });

    let unchanged = supervised.client().ping().unwrap();
    assert_eq!(unchanged.0, supervised.pid());
}

fn whoever_waits_for_what_a_stop_prevents_is_told_so() {
    let mut reloading = Supervised::start(&["canary_ms=60000"]);
    let replies = reloading.client().command(&RELOAD).unwrap();
    eventually("it has begun", || reloading.status().supervisor.state == SupervisorState::Reloading);
    reloading.signal(Signal::SIGTERM);
    let last = replies.map(Result::unwrap).last();
    assert_eq!(last, Some(Reply::Failed { code: 4, message: "the supervisor ends".to_owned() }));
    assert_eq!(reloading.ends(Duration::from_secs(10)).code(), Some(0));

    let (mut upgrading, program) = with_own_program(&[]);
    install(&program, b"#!/bin/sh\nexec sleep 60\n");
    let replies = upgrading.client().command(&Request::Upgrade).unwrap();
    eventually("it is tried", || upgrading.line(" is tried (pid ").is_some());
    upgrading.signal(Signal::SIGTERM);
    let last = replies.map(Result::unwrap).last();
    assert_eq!(last, Some(Reply::Failed { code: 75, message: "the supervisor ends".to_owned() }));
    assert_eq!(upgrading.ends(Duration::from_secs(10)).code(), Some(0));
}

fn a_signal_that_comes_while_a_program_takes_over_is_not_lost() {
    let own = std::env::current_exe().unwrap();
    for round in 0..20 {
        let (mut supervised, program) = with_own_program(&["workers=1"]);
        // The rehearsal ends, which is the sign to take over, and a moment later somebody stops the service.
        let stop = "i=0; while [ $i -lt $0 ]; do i=$((i + 1)); done; kill -TERM $SUPERVISOR";
        let script = format!(
            "#!/bin/sh\n[ -z \"$BELLWETHER_REHEARSAL\" ] && exec {} \"$@\"\n\
             export SUPERVISOR=$PPID\nsh -c '{stop}' {} &\nexit 0\n",
            own.display(),
            round * 40,
        );
        install(&program, script.as_bytes());
        supervised.signal(Signal::SIGUSR2);
        assert_eq!(supervised.ends(Duration::from_secs(10)).code(), Some(0), "round {round}");
    }
}
