//! Life under systemd: what the service manager is told and when, and sockets that it has bound.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_support::{Binaries, Connections, Load, Signal, eventually, process};

use crate::cluster::{Builder, Cluster};

const PATIENCE: Duration = Duration::from_secs(10);

/// As systemd would: takes notifications and remembers when they came.
struct Manager {
    directory: TempDir,
    said: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                heard.lock().unwrap().push((Instant::now(), text));
            }
        });
        Self { directory, said }
    }

    /// A service of it, as `Type=notify-reload` with these settings of its own.
    fn service(&self) -> Builder {
        let socket = self.directory.path().join("notify");
        Cluster::builder().environment("NOTIFY_SOCKET", &socket.display().to_string())
    }

    /// Everything that was said so far, signs of life aside, since message number `from`.
    fn said_since(&self, from: usize) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.iter().map(|(_, text)| text.clone()).filter(|text| text != "WATCHDOG=1").skip(from).collect()
    }

    fn when(&self, wanted: &str) -> Option<Instant> {
        let said = self.said.lock().unwrap();
        said.iter().find(|(_, text)| text == wanted).map(|(at, _)| *at)
    }

    fn count(&self, wanted: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|(_, text)| text == wanted).count()
    }

    /// What is said from the announcement of the reload that `change` is until the service is ready again.
    fn reloading(&self, change: impl FnOnce()) -> Vec<String> {
        let from = self.said_since(0).len();
        change();
        eventually(PATIENCE, || {
            // What was true before may be told a moment later.
            let said = self.said_since(from).into_iter().skip_while(|text| moment_of(text).is_none());
            Some(said.collect::<Vec<_>>()).filter(|said| said.iter().any(|text| text == "READY=1"))
        })
    }
}

/// The moment in a reload's announcement, in microseconds.
fn moment_of(announcement: &str) -> Option<u64> {
    announcement.strip_prefix("RELOADING=1\nMONOTONIC_USEC=")?.parse().ok()
}

#[test]
fn the_service_is_ready_when_the_last_worker_is_and_not_before() {
    let manager = Manager::new();
    let program = Binaries::misbehaving().display().to_string();
    let begun = Instant::now();
    let service = manager.service().configuration("[supervisor]\nmin_uptime = \"30s\"\n");
    let cluster = service.program(&[&program, "only=1", "ready-after=1500"]).start();
    let ready = manager.when("READY=1").expect("all workers are ready");
    assert!(ready - begun >= Duration::from_millis(1_500), "ready after {:?}", ready - begun);
    assert_eq!(manager.count("READY=1"), 1);
    let half = manager.when("STATUS=Running, 1 of 2 workers ready, generation 1").expect("the first was ready");
    assert!(half < ready);
    eventually(PATIENCE, || manager.count("STATUS=Running, 2 of 2 workers ready, generation 1") == 1);
    assert!(!process::environment(cluster.ready_workers()[0].pid).iter().any(|variable| {
        variable.starts_with("NOTIFY_SOCKET=") && variable.contains(&manager.directory.path().display().to_string())
    }));
}

#[test]
fn reloads_changes_and_the_end_are_told_in_order() {
    let manager = Manager::new();
    let mut cluster = manager.service().configuration("[supervisor]\ncanary = \"300ms\"\n").start();
    let begun = Instant::now();
    let first = manager.reloading(|| assert!(cluster.command(&["reload"]).status.success()));
    let between = begun.elapsed();
    let second = manager.reloading(|| cluster.signal(Signal::SIGHUP));
    let moments: Vec<u64> =
        [&first, &second].iter().map(|said| moment_of(&said[0]).expect("it is told first")).collect();
    let apart = Duration::from_micros(moments[1] - moments[0]);
    assert!(apart.abs_diff(between) < Duration::from_secs(1), "{apart:?} instead of {between:?}");
    for (said, before, after) in [(&first, 1, 2), (&second, 2, 3)] {
        let expected = [
            format!("STATUS=Reloading, 2 of 2 workers ready, generation {before}"),
            "READY=1".to_owned(),
            format!("STATUS=Running, 2 of 2 workers ready, generation {after}"),
        ];
        eventually(PATIENCE, || manager.count(&expected[2]) == 1);
        assert_eq!(said[1..3], expected[..2], "{said:?}");
    }

    cluster.configure("[supervisor]\nworkres = 3\n");
    for by_signal in [false, true] {
        let refused = manager.reloading(|| {
            if by_signal {
                cluster.signal(Signal::SIGHUP);
            } else {
                assert_eq!(cluster.command(&["reload"]).status.code(), Some(78));
            }
        });
        assert!(moment_of(&refused[0]).is_some() && refused[1] == "READY=1", "{refused:?}");
    }

    assert!(cluster.command(&["scale", "3"]).status.success());
    eventually(PATIENCE, || manager.count("STATUS=Running, 3 of 3 workers ready, generation 3") == 1);
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.wait(PATIENCE).code(), Some(0));
    assert_eq!(manager.count("STOPPING=1"), 1);
    let said = manager.said_since(0);
    let stopping = said.iter().position(|text| text == "STOPPING=1").unwrap();
    assert!(said[stopping..].iter().all(|text| text != "READY=1"), "{said:?}");
}

#[test]
fn the_watchdog_is_fed_for_as_long_as_the_loop_turns() {
    let manager = Manager::new();
    let program = Binaries::misbehaving().display().to_string();
    let mut cluster = manager.service().environment("WATCHDOG_USEC", "600000").program(&[&program]).start();
    let fed = || manager.count("WATCHDOG=1");
    eventually(PATIENCE, || fed() >= 4);
    let (begun, before) = (Instant::now(), fed());
    eventually(PATIENCE, || fed() >= before + 6);
    // Half of what is granted, so that one that comes late is no death.
    assert!(begun.elapsed() <= Duration::from_millis(6 * 300 + 600), "{:?}", begun.elapsed());

    cluster.signal(Signal::SIGSTOP);
    eventually(PATIENCE, || process::state(cluster.pid()) == Some('T'));
    let (stopped, before) = (Instant::now(), fed());
    eventually(PATIENCE, || stopped.elapsed() >= Duration::from_secs(1));
    let meanwhile = fed() - before;
    cluster.signal(Signal::SIGCONT);
    assert!(meanwhile <= 1, "it was fed {meanwhile} times by a stopped process");
    eventually(PATIENCE, || fed() >= before + 4);
}

/// Clients that open a connection for each request, until they are stopped.
fn newcomers(cluster: &Cluster) -> Load {
    let (connections, duration) = (Connections::PerRequest, Duration::from_secs(600));
    Load { clients: 8, connections, duration, ..Load::new(cluster.address, "/livez") }
}

#[test]
fn a_socket_that_systemd_has_bound_is_shared_survives_reloads_and_even_the_supervisor() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = listener.try_clone().unwrap();
    let configuration = "[supervisor]\ncanary = \"300ms\"\n";
    let mut cluster = Cluster::builder().configuration(configuration).activated(listener).start();
    let sockets = process::listening_sockets(cluster.address);
    assert_eq!(sockets.len(), 1, "it was sharded: {sockets:?}");
    assert_eq!(cluster.status().unwrap()["supervisor"]["listen"][0], held.local_addr().unwrap().to_string());
    eventually(PATIENCE, || {
        let names = (0..20).filter_map(|_| Some(cluster.get("/livez").header("x-served-by")?.to_owned()));
        names.collect::<std::collections::BTreeSet<_>>().len() == 2
    });

    let load = newcomers(&cluster).start();
    (0..3).for_each(|_| assert!(cluster.command(&["reload"]).status.success()));
    assert!(cluster.command(&["scale", "3"]).status.success());
    let orphans = process::descendants(cluster.pid());
    cluster.signal(Signal::SIGKILL);
    cluster.wait(PATIENCE);
    // Whoever comes in between waits: systemd holds the socket, and starts the service anew.
    eventually(PATIENCE, || orphans.iter().all(|pid| !process::is_alive(*pid)));
    let before = load.succeeded();
    cluster.start_again();
    eventually(PATIENCE, || load.succeeded() > before + 100);
    load.stop();
    let report = load.join();
    println!("{report}");
    report.assert_clean();
    assert_eq!(process::listening_sockets(cluster.address), sockets);
}
