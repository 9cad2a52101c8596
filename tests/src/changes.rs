//! A fleet that changes under load: other numbers of workers, workers that hang, slots that are broken, descriptors that run out, and
//! processes beside the workers.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_support::{Binaries, Connections, Control, Histogram, Load, Signal, eventually, process};

use crate::cluster::{Cluster, START, Worker, status_by};
use crate::traffic::{Kind, Traffic};

/// Clients that open a connection for each request.
fn newcomers(cluster: &Cluster, duration: Duration) -> Load {
    let connections = Connections::PerRequest;
    Load { clients: 12, connections, duration, ..Load::new(cluster.address, "/api/v1/categories") }
}

fn is_replaced(cluster: &Cluster, before: &Worker) -> bool {
    cluster.ready_workers().iter().any(|worker| worker.id == before.id && worker.pid != before.pid)
}

/// What `status` says of the worker in `slot`.
fn slot(cluster: &Cluster, slot: usize) -> Value {
    cluster.status().expect("the supervisor answers")["workers"][slot].clone()
}

#[test]
fn scaling_up_and_down_under_load_loses_nothing_and_lasts_across_a_reload() {
    let cluster = Cluster::builder().workers(2).configuration("[supervisor]\ncanary = \"300ms\"\n").start();
    let traffic = Traffic::of(&cluster, &[Kind::Busy, Kind::PerRequest, Kind::Thinking, Kind::Balancer]);
    let mut before = 2;
    for count in [8, 1, 4] {
        let begun = Instant::now();
        let output = cluster.never_below(before.min(count), || {
            let output = cluster.command(&["scale", &count.to_string()]);
            println!("{before} to {count}: ready after {:.1?}", begun.elapsed());
            // Whoever is not wanted any more stays until its queue is empty and its clients are gone.
            eventually(Duration::from_secs(20), || {
                cluster.status().unwrap()["workers"].as_array().unwrap().len() == count
            });
            output
        });
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(cluster.ready_workers().len(), count);
        before = count;
    }
    assert!(cluster.command(&["reload"]).status.success());
    assert_eq!(cluster.ready_workers().len(), 4, "the number did not last");
    let report = traffic.end();
    println!("{report}");
    report.assert_clean(5);
}

#[test]
fn a_stopped_worker_is_replaced_in_time_and_whoever_waits_for_it_is_answered() {
    let cluster = Cluster::builder().workers(2).start();
    let stopped = cluster.ready_workers()[0].clone();
    // It has hardly begun to serve.
    assert!(process::signal(stopped.pid, Signal::SIGSTOP));
    let begun = Instant::now();
    let load = newcomers(&cluster, Duration::from_secs(14)).start();
    eventually(Duration::from_secs(20), || is_replaced(&cluster, &stopped));
    let took = begun.elapsed();
    assert!(took <= Duration::from_secs(13), "replaced after {took:?}");
    assert!(took >= Duration::from_secs(9), "it was not even silent for as long as it may: {took:?}");
    load.stop();
    let report = load.join();
    println!("replaced after {took:.1?}; {report}");
    report.assert_clean();
    // It is left out after 1.5 s of silence, and a second later its sibling takes those who wait.
    assert!(report.latency.max() <= Duration::from_secs(4), "{report}");
    assert!(cluster.output().contains("w0 is silent and gets no new connections"));
    assert_eq!(slot(&cluster, 0)["restarts"], 1);
    eventually(Duration::from_secs(5), || !process::is_alive(stopped.pid));
}

/// Two real workers, of which the second cannot be started while a file exists.
fn with_a_slot_that_can_break(file: &std::path::Path) -> Cluster {
    let told = format!("only=1 while={} exit=1 else={}", file.display(), Binaries::worker().display());
    let worker = Binaries::misbehaving();
    let builder = Cluster::builder().workers(2).environment("MISBEHAVE", &told);
    builder.argument("--worker-bin").argument(&worker.display().to_string()).start()
}

#[test]
fn nobody_waits_for_a_slot_that_is_broken() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broken");
    let cluster = with_a_slot_that_can_break(&file);
    let sibling = cluster.ready_workers()[0].clone();
    std::fs::write(&file, "").unwrap();
    assert!(process::signal(cluster.ready_workers()[1].pid, Signal::SIGKILL));
    let load = newcomers(&cluster, Duration::from_secs(60)).start();
    let broken =
        eventually(Duration::from_secs(20), || Some(slot(&cluster, 1)).filter(|worker| worker["state"] == "broken"));
    assert!(broken["reason"].as_str().unwrap().contains("exited with code 1 before it was ready"), "{broken}");
    assert_eq!((&broken["pid"], &broken["last_exit"]["code"]), (&Value::Null, &Value::from(1)));
    load.stop();
    let report = load.join();
    println!("{report}");
    report.assert_clean();
    assert!(report.latency.max() <= Duration::from_millis(1_500), "{report}");
    assert_eq!(cluster.ready_workers(), [sibling], "a sibling was touched");
    for _ in 0..40 {
        assert_eq!(cluster.get("/livez").header("x-served-by"), Some("w0"));
    }
    std::fs::remove_file(&file).unwrap();
    assert!(cluster.command(&["restart", "1"]).status.success());
    assert_eq!(cluster.ready_workers().len(), 2);
}

/// Changes how many descriptors a running process may have.
fn limit_descriptors(pid: u32, soft: usize) {
    let arguments = ["--pid".to_owned(), pid.to_string(), format!("--nofile={soft}:")];
    assert!(Command::new("prlimit").args(arguments).status().expect("it is part of util-linux").success());
}

#[test]
fn without_descriptors_a_worker_waits_for_its_successor_and_the_supervisor_goes_on() {
    let cluster = Cluster::builder().workers(2).start();
    // Nobody new can be let in without a descriptor.
    let mut control = cluster.control();
    let victim = cluster.ready_workers()[1].clone();
    limit_descriptors(cluster.pid(), process::open_descriptors(cluster.pid()) - 4);
    assert!(process::signal(victim.pid, Signal::SIGKILL));
    let load = newcomers(&cluster, Duration::from_secs(60)).start();
    let waiting = eventually(Duration::from_secs(10), || {
        let worker = status_by(&mut control)?["workers"][1].clone();
        worker["reason"].as_str().is_some_and(|reason| reason.contains("Too many open files")).then_some(worker)
    });
    assert_eq!(waiting["state"], "backoff");
    assert!(waiting["reason"].as_str().unwrap().contains("w1 cannot be started"), "{waiting}");
    limit_descriptors(cluster.pid(), 4096);
    eventually(Duration::from_secs(20), || is_replaced(&cluster, &victim));
    load.stop();
    let report = load.join();
    report.assert_clean();
    assert!(report.latency.max() <= Duration::from_millis(1_500), "{report}");
}

/// Processor time that the supervisor uses within `period`, beyond the last tick of the clock it is counted in.
fn used_within(cluster: &Cluster, period: Duration) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let (begun, before) = (Instant::now(), process::cpu_time(cluster.pid()));
    eventually(period * 2, || begun.elapsed() >= period);
    (process::cpu_time(cluster.pid()) - before).saturating_sub(TICK)
}

#[test]
fn an_idle_supervisor_uses_no_processor_time_to_speak_of_and_little_while_a_worker_crashes_again_and_again() {
    let period = Duration::from_secs(if std::env::var_os("BELLWETHER_LONG").is_some() { 60 } else { 5 });
    let directory = tempfile::tempdir().unwrap();
    let crashing = directory.path().join("crashing");
    let program = Binaries::misbehaving().display().to_string();
    let words = [&program, "only=1", &format!("while={}", crashing.display()), "exit=1"];
    let cluster = Cluster::builder().workers(4).program(&words).start();
    let idle = used_within(&cluster, period);
    std::fs::write(&crashing, "").unwrap();
    assert!(process::signal(cluster.ready_workers()[1].pid, Signal::SIGKILL));
    let busy = used_within(&cluster, period);
    println!("in {period:?} idle {idle:?}, with crashes {busy:?}");
    assert_eq!(slot(&cluster, 1)["state"], "broken");
    assert!(idle <= period / 1_000 && busy <= period / 100, "in {period:?} idle {idle:?}, with crashes {busy:?}");
}

/// What `status` says of the processes beside the workers, by name.
fn auxiliary(cluster: &Cluster, name: &str) -> Option<Value> {
    let status = cluster.status()?;
    status["processes"].as_array()?.iter().find(|known| known["name"] == name).cloned()
}

#[test]
fn processes_beside_the_workers_are_shown_restarted_and_ended_after_them() {
    let program = Binaries::misbehaving();
    let configuration = format!(
        "[supervisor]\nmin_uptime = \"50ms\"\n[[supervisor.process]]\nname = \"mailer\"\ncommand = [\"{}\", \"print=2\"]\ncount = 2\n",
        program.display()
    );
    let mut cluster = Cluster::builder().configuration(&configuration).start();
    let mailers = ["mailer-0", "mailer-1"];
    let pid = |cluster: &Cluster, name: &str| auxiliary(cluster, name).unwrap()["pid"].as_u64().unwrap() as u32;
    for (number, name) in mailers.iter().enumerate() {
        eventually(START, || auxiliary(&cluster, name).is_some_and(|process| process["state"] == "ready"));
        let environment = process::environment(pid(&cluster, name));
        assert!(environment.contains(&format!("PROCESS_ID={number}")), "{environment:?}");
        assert!(!environment.iter().any(|variable| variable.starts_with("LISTEN_FDS=")), "{environment:?}");
    }
    let killed = pid(&cluster, "mailer-1");
    assert!(process::signal(killed, Signal::SIGKILL));
    let restarted = eventually(Duration::from_secs(5), || {
        auxiliary(&cluster, "mailer-1").filter(|process| process["state"] == "ready" && process["pid"] != killed)
    });
    assert_eq!(restarted["restarts"], 1);
    assert!(cluster.output().contains("mailer-1| line 0 to stdout"));
    let table = String::from_utf8_lossy(&cluster.command(&["status"]).stdout).into_owned();
    assert!(table.contains("mailer-0") && table.contains("mailer-1"), "{table}");

    let uploads = Traffic::of(&cluster, &[Kind::Slow]);
    eventually(Duration::from_secs(5), || cluster.total(|name| name.starts_with("http_server_active_requests")) >= 4.0);
    let pids: Vec<u32> = mailers.iter().map(|name| pid(&cluster, name)).collect();
    cluster.signal(Signal::SIGTERM);
    let report = uploads.end();
    assert!(report.succeeded() >= 4, "{report}");
    assert_eq!(cluster.wait(Duration::from_secs(10)).code(), Some(0), "{}", cluster.output());
    let output = cluster.output();
    let place = |pid: u32| output.rfind(&format!("(pid {pid}) ended")).unwrap_or_else(|| panic!("{pid}: {output}"));
    let workers = output.rfind("w0 (pid ").max(output.rfind("w1 (pid ")).unwrap();
    assert!(pids.iter().all(|pid| place(*pid) > workers), "{output}");
}

/// How long answers to `status` take until `is_over`.
fn status_until(control: &mut Control, mut is_over: impl FnMut() -> bool) -> Histogram {
    let mut latencies = Histogram::default();
    eventually(Duration::from_secs(60), || {
        let asked = Instant::now();
        let answer = control.ask("\"Status\"").unwrap();
        latencies.record(asked.elapsed());
        assert!(answer.matches("\"generation\"").count() > 64, "{answer}");
        is_over()
    });
    let (count, p50, p99) = (latencies.count(), latencies.p50(), latencies.p99());
    println!("{count} answers: p50 {p50:?}, p99 {p99:?}, max {:?}", latencies.max());
    assert!(count >= 100, "only {count} answers");
    latencies
}

#[test]
fn status_is_answered_at_once_while_sixty_four_workers_are_replaced() {
    let program = Binaries::misbehaving().display().to_string();
    let builder = Cluster::builder().workers(64).configuration("[supervisor]\ncanary = \"300ms\"\n").alone();
    let cluster = builder.program(&[&program, "ready-after=80"]).start();
    let mut control = cluster.control();
    // Whatever else the machine does can only add to it, so one quick reload tells enough.
    let quick = (0..6).any(|_| {
        let begun = Instant::now();
        let calm = status_until(&mut control, || begun.elapsed() >= Duration::from_secs(1));
        let reloading = std::thread::scope(|scope| {
            let reload = scope.spawn(|| cluster.command(&["reload"]));
            let latencies = status_until(&mut control, || reload.is_finished());
            assert!(reload.join().unwrap().status.success());
            latencies
        });
        // A build without optimisation on a machine without rest may take longer even when nothing is replaced.
        reloading.p99() < Duration::from_millis(5).max(calm.p99() * 3 / 2)
    });
    assert!(quick, "no answer was quick enough");
}
