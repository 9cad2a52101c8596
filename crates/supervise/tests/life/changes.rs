//! Changes to a running fleet: reloads, other numbers, restarts, and workers that are replaced because they are not well.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use supervise::control::{Reply, Request, Scale};
use supervise::status::{State, SupervisorState};

use crate::cases::{Case, named};
use crate::harness::{
    Supervised, directory, eventually, is_alive, own_memory_bytes, set_mode, signal, under_load, within,
};

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
        named(workers_are_bound_to_processors_only_when_that_is_wanted),
    ]
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
