//! What must not keep a supervisor from its work: busy clients, talkative workers, orphans; and what it costs when there is none.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use supervise::control::Request;

use crate::cases::{Case, named};
use crate::harness::{Supervised, ask, directory, eventually, is_alive, own_memory_bytes, set_mode, signal, within};

pub(crate) fn all() -> Vec<Case> {
    vec![
        named(an_idle_supervisor_uses_less_than_a_thousandth_of_a_processor),
        named(clients_do_not_delay_the_reaping_of_a_child),
        named(a_worker_that_talks_without_end_keeps_nobody_waiting),
        named(the_first_process_of_a_namespace_reaps_a_thousand_orphans),
    ]
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
