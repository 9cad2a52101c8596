//! Limits while hosts, workers and settings come and go.

use std::time::Duration;

use tempfile::TempDir;
use test_support::http::Request;
use test_support::{Load, LoadReport, Redis, RunningLoad, Signal, eventually, process};

use crate::cluster::{Builder, Cluster};

/// A clock that is an hour behind, for programs that read one; timers keep their pace.
fn an_hour_behind(builder: Builder) -> Builder {
    let mut folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let library =
        folders.find_map(|folder| Some(folder.join("faketime/libfaketime.so.1")).filter(|path| path.exists()));
    let library = library.expect("apt-get install libfaketime").display().to_string();
    let variables = [("LD_PRELOAD", library.as_str()), ("FAKETIME", "-1h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    variables.iter().fold(builder, |builder, (name, value)| builder.environment(name, value))
}

/// On a machine that is busy with other tests a wait of 25 ms is no proof that Redis is away.
fn patient(more: &str) -> String {
    format!("{}\n[rate_limit]\ntimeout = \"5s\"\n", policy(more))
}

fn policy(more: &str) -> String {
    format!(
        "[supervisor]\ncanary = \"300ms\"\n[http]\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
         [[rate_limit.policy]]\nname = \"test\"\npaths = [\"/api/**\"]\nwindow = \"1h\"\n{more}"
    )
}

fn from_client(number: u8) -> Request {
    Request::get("/api/v1/categories").header("x-forwarded-for", &format!("203.0.113.{number}"))
}

/// Requests of one client, of which some pass.
fn load(cluster: &Cluster, client: u8) -> Load {
    Load { mix: vec![from_client(client)], expected: vec![200, 429], ..Load::new(cluster.address, "/") }
}

/// Sends on until nothing has passed for longer than anything is granted ahead, or a denial believed; returns how many passed.
fn use_up(cluster: &Cluster, client: u8) -> u64 {
    let mut passed = 0;
    for _ in 0..100 {
        let pause = Duration::from_millis(4);
        let report = Load { duration: Duration::from_millis(2_500), pause, ..load(cluster, client) }.run();
        report.assert_clean();
        passed += report.status(200);
        if report.status(200) == 0 {
            return passed;
        }
    }
    panic!("{passed} passed, and no end");
}

/// Supervisors with a Redis and a key for hashes in common.
struct Hosts {
    redis: Redis,
    _directory: TempDir,
    hosts: [Cluster; 2],
}

impl Hosts {
    /// Two hosts with two workers each, of which the second's clock is an hour behind.
    fn start(configuration: &str) -> Self {
        let (redis, directory) = (Redis::start(), tempfile::tempdir().unwrap());
        let key = directory.path().join("key").display().to_string();
        let host = |builder: Builder| {
            builder
                .workers(2)
                .configuration(configuration)
                .environment("REDIS_URL", &redis.unix_url())
                .environment("BELLWETHER__AUTH__TOKEN_KEY_FILE", &key)
        };
        let first = host(Cluster::builder()).start();
        let second = an_hour_behind(host(Cluster::builder()).beside(&first)).start();
        Self { redis, _directory: directory, hosts: [first, second] }
    }

    /// Uses up what a client may do, on both at once.
    fn use_up(&self, client: u8) -> u64 {
        std::thread::scope(|scope| {
            let counts = self.hosts.each_ref().map(|host| scope.spawn(move || use_up(host, client)));
            counts.into_iter().map(|count| count.join().unwrap()).sum()
        })
    }

    /// Waits until every worker knows all four.
    fn wait_until_acquainted(&self) {
        for host in &self.hosts {
            eventually(Duration::from_secs(10), || host.metrics().contains("bellwether_cluster_workers 4"));
        }
    }
}

#[test]
fn two_hosts_admit_exactly_the_limit_together_whatever_their_clocks_show() {
    for more in ["limit = 300\n", "limit = 5000\nlease = \"auto\"\n"] {
        let hosts = Hosts::start(&patient(more));
        let date = |host: &Cluster| host.get("/livez").header("date").unwrap().to_owned();
        assert_ne!(date(&hosts.hosts[0])[..20], date(&hosts.hosts[1])[..20], "their clocks differ");
        let limit: u64 = more.split_whitespace().nth(2).unwrap().parse().unwrap();
        assert_eq!(hosts.use_up(1), limit, "{more}");
        let header = |host: &Cluster| host.send(&from_client(1)).header("ratelimit").unwrap().to_owned();
        let [first, second] = hosts.hosts.each_ref().map(header);
        let seconds = |header: &str| header.rsplit_once("t=").unwrap().1.parse::<u64>().unwrap();
        assert!(seconds(&first).abs_diff(seconds(&second)) <= 1, "{first} and {second}");
    }
}

#[test]
fn two_hosts_without_redis_divide_the_limit_among_the_workers_of_both() {
    let hosts = Hosts::start(&policy("limit = 40\n"));
    hosts.wait_until_acquainted();
    hosts.redis.stop();
    for host in &hosts.hosts {
        eventually(Duration::from_secs(10), || host.get("/health").text().contains("\"warn\""));
    }
    for client in 1..4 {
        assert_eq!(admitted_alone(&hosts, client), 40, "client {client}");
    }
    hosts.redis.cont();
}

/// How many pass on both, over connections that spread over all workers.
fn admitted_alone(hosts: &Hosts, client: u8) -> usize {
    let passed = |host: &Cluster| (0..200).filter(|_| host.send(&from_client(client)).status == 200).count();
    hosts.hosts.iter().map(passed).sum()
}

#[test]
fn workers_that_are_killed_with_what_they_were_granted_never_make_it_more() {
    let limit = 20_000;
    let cluster = Cluster::builder().workers(4).configuration(&patient("limit = 20000\nlease = \"auto\"\n")).start();
    let busy = Load { duration: Duration::from_secs(120), ..load(&cluster, 1) }.start();
    eventually(Duration::from_secs(60), || busy.succeeded() > 3_000);
    let before = cluster.ready_workers();
    before.iter().take(3).for_each(|worker| assert!(process::signal(worker.pid, Signal::SIGKILL)));
    eventually(Duration::from_secs(60), || {
        cluster.ready_workers().iter().filter(|worker| worker.restarts > 0).count() == 3
    });
    let report = end(busy);
    let passed = report.status(200) + use_up(&cluster, 1);
    // A request whose connection was cut had been counted too.
    assert!(passed <= limit && passed >= limit - limit / 4, "{passed}");
}

fn end(load: RunningLoad) -> LoadReport {
    load.stop();
    load.join()
}

#[test]
fn a_reload_under_load_gives_back_what_the_old_workers_were_granted() {
    let limit = 10_000;
    let cluster = Cluster::builder().workers(2).configuration(&patient("limit = 10000\nlease = \"auto\"\n")).start();
    let busy =
        Load { duration: Duration::from_secs(120), pause: Duration::from_millis(8), ..load(&cluster, 1) }.start();
    eventually(Duration::from_secs(60), || busy.succeeded() > 500);
    for _ in 0..3 {
        assert!(cluster.command(&["reload"]).status.success());
    }
    let report = end(busy);
    report.assert_clean();
    assert_eq!(report.status(200) + use_up(&cluster, 1), limit);
}

#[test]
fn another_limit_counts_when_the_reload_has_returned_and_keeps_what_was_counted() {
    let cluster = Cluster::builder().workers(2).configuration(&patient("limit = 100\n")).start();
    let others = Load { duration: Duration::from_secs(120), ..load(&cluster, 200) }.start();
    let passing = || (0..250).filter(|_| cluster.send(&from_client(1)).status == 200).count();
    assert_eq!((0..60).filter(|_| cluster.send(&from_client(1)).status == 200).count(), 60);
    for (limit, expected) in [(50, 0), (200, 140), (10, 0)] {
        cluster.configure(&patient(&format!("limit = {limit}\n")));
        assert!(cluster.command(&["reload"]).status.success());
        assert_eq!(passing(), expected, "with a limit of {limit}");
    }
    cluster.configure(&patient("limit = \"many\"\n"));
    assert_eq!(cluster.command(&["reload"]).status.code(), Some(78));
    assert_eq!(cluster.send(&from_client(2)).header("ratelimit-policy"), Some("\"test\";q=10;w=3600"));
    end(others).assert_clean();
}
