//! Reloads of real workers under load: nothing is lost by a good release, and nothing is changed by a bad one.

use std::ops::{Range, RangeInclusive};
use std::time::{Duration, Instant};

use test_support::{Binaries, Histogram, Signal, eventually, process};

use crate::cluster::{Cluster, Worker};
use crate::traffic::{Kind, SLOW, Traffic};

/// Reloads in a row, in each round.
const RELOADS: usize = 20;

/// How long nothing changes before the reloads of a round, so that both can be compared.
const CALM: Duration = Duration::from_secs(5);

/// How many rounds there are at least, and at most when the machine is busy with something else.
const ROUNDS: RangeInclusive<usize> = 3..=9;

/// Requests that met a kept connection at the moment in which it was closed, which HTTP allows, and were sent again.
const RETRIED_AT_MOST: u64 = 5;

const QUICK_CANARY: &str = "[supervisor]\ncanary = \"300ms\"\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn requests_wanted() -> u64 {
    if std::env::var_os("BELLWETHER_LONG").is_some() { 1_000_000 } else { 200_000 }
}

fn assert_reloads(cluster: &Cluster) {
    let output = cluster.command(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// The 99th percentiles of a round: of what came before its reloads, and of what came during them.
#[derive(Debug)]
struct Round {
    calm: Duration,
    reloading: Duration,
}

impl Round {
    /// Lets some time pass, then reloads again and again.
    fn run(cluster: &Cluster, traffic: &Traffic, begun: Instant) -> Self {
        let seconds = || begun.elapsed().as_secs() as usize;
        let (first, calm_until) = (seconds() + 1, begun.elapsed() + CALM);
        eventually(CALM * 2, || begun.elapsed() >= calm_until);
        let middle = seconds();
        (0..RELOADS).for_each(|_| assert_reloads(cluster));
        let last = seconds();
        let latencies = traffic.latency_by_second();
        let p99 = |seconds: Range<usize>| {
            let mut all = Histogram::default();
            latencies.iter().take(seconds.end).skip(seconds.start).for_each(|second| all.merge(second));
            all.p99()
        };
        Self { calm: p99(first..middle), reloading: p99(middle + 1..last) }
    }

    fn is_slow(&self) -> bool {
        self.reloading > self.calm * 2
    }
}

/// Two rounds of three are to be as quick as they should, for something else may keep the machine busy in one of them.
fn are_slow(rounds: &[Round]) -> bool {
    rounds.iter().filter(|round| round.is_slow()).count() * 3 > rounds.len()
}

#[test]
fn twenty_reloads_in_a_row_lose_nothing_of_anything_and_delay_hardly_anybody() {
    let cluster = Cluster::builder().workers(2).alone().start();
    let begun = Instant::now();
    let traffic = Traffic::start(&cluster);
    let mut rounds: Vec<Round> = Vec::new();
    cluster.never_below(2, || {
        // With the canary that people have; the others go on sooner, so that there are more of them.
        assert_reloads(&cluster);
        cluster.configure(QUICK_CANARY);
        let goes_on = |rounds: &[Round]| {
            let too_few = rounds.len() < *ROUNDS.start() || traffic.succeeded() < requests_wanted();
            too_few || (are_slow(rounds) && rounds.len() < *ROUNDS.end())
        };
        while goes_on(&rounds) {
            rounds.push(Round::run(&cluster, &traffic, begun));
        }
    });
    let generation = cluster.status().unwrap()["supervisor"]["generation"].as_u64().unwrap();
    assert_eq!(generation as usize, 2 + rounds.len() * RELOADS);
    let report = traffic.end();
    println!("{generation} generations in {:.0?}\n{report}{rounds:.1?}", begun.elapsed());
    report.assert_clean(RETRIED_AT_MOST);
    assert!(report.succeeded() >= requests_wanted(), "{report}");
    assert!(report.succeeded_of(Kind::Slow) >= 8, "{report}");
    assert!(!are_slow(&rounds), "{rounds:.1?}");
    eventually(Duration::from_secs(20), || old_workers(&cluster, generation) == 0);
}

fn old_workers(cluster: &Cluster, generation: u64) -> usize {
    let status = cluster.status().unwrap();
    status["workers"].as_array().unwrap().iter().filter(|worker| worker["generation"] != generation).count()
}

/// A cluster with the workers' executable for a bad release, and the file that says how bad it is.
struct BadRelease {
    cluster: Cluster,
    binary: String,
    words: tempfile::NamedTempFile,
}

impl BadRelease {
    fn start(configuration: &str) -> Self {
        let words = tempfile::NamedTempFile::new().unwrap();
        let misbehave = format!("from={}", words.path().display());
        let cluster = Cluster::builder().configuration(configuration).environment("MISBEHAVE", &misbehave).start();
        Self { cluster, binary: Binaries::misbehaving().display().to_string(), words }
    }

    /// Reloads with a worker that does what `words` say; returns how long it took until that was told.
    fn assert_refused(&self, words: &str, why: &str) -> Duration {
        std::fs::write(self.words.path(), words).unwrap();
        let begun = Instant::now();
        let output = self.cluster.command(&["reload", "--binary", &self.binary]);
        let (took, message) = (begun.elapsed(), text(&output.stderr));
        assert_eq!(output.status.code(), Some(4), "{words}: {message}");
        assert!(message.contains("w0 (pid ") && message.contains(why), "{words}: {message}");
        let last_words: Vec<_> = message.lines().filter(|line| line.starts_with("  ")).collect();
        assert_eq!(last_words.len(), 20, "{words}: {message}");
        assert!(last_words.iter().any(|line| line.contains("line 29 to stderr")), "{words}: {message}");
        took
    }
}

#[test]
fn a_bad_release_is_told_with_its_last_words_and_changes_nothing_for_anybody() {
    let ready_timeout = Duration::from_secs(3);
    let release = BadRelease::start("[supervisor]\nready_timeout = \"3s\"\n");
    let cluster = &release.cluster;
    let before = cluster.ready_workers();
    let traffic = Traffic::of(cluster, &[Kind::Busy, Kind::PerRequest, Kind::Balancer]);
    for (words, why) in [
        ("print=30 exit=3", "exited with code 3 before it was ready"),
        ("print=30 exit=78", "exited with code 78 before it was ready"),
        ("print=30 exit=0", "ended before it was ready"),
        ("print=30 stuck", "was not ready within 3.0s"),
    ] {
        let took = cluster.never_below(2, || release.assert_refused(words, why));
        assert!(took <= ready_timeout + Duration::from_secs(1), "{words}: told after {took:?}");
        assert_eq!(cluster.ready_workers(), before, "{words}");
    }
    let output = cluster.command(&["reload", "--binary", "/nonexistent/worker"]);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output.stderr));
    let report = traffic.end();
    report.assert_clean(RETRIED_AT_MOST);
    println!("{report}");
    // These have served already, and what they had in flight ends with them.
    for (words, why) in [
        ("print=30 exit-when-ready=101", "exited with code 101 right after it was ready"),
        ("print=30 exit-after=500:1", "exited with code 1 right after it was ready"),
    ] {
        release.assert_refused(words, why);
        assert_eq!(cluster.ready_workers(), before, "{words}");
    }
    // What was rolled back is not tried again: the executable from before is the one that a reload starts anew.
    assert_reloads(cluster);
    let runs_worker = |worker: &Worker| process::executable(worker.pid) == Some(Binaries::worker());
    assert!(cluster.ready_workers().iter().all(runs_worker), "{:?}", cluster.ready_workers());
}

#[test]
fn a_worker_that_refuses_what_it_finds_is_rolled_back_with_its_reason() {
    let cluster = Cluster::builder().configuration(QUICK_CANARY).start();
    let (before, key) = (cluster.ready_workers(), cluster.state_dir().join("token.key"));
    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key at all").unwrap();
    let output = cluster.command(&["reload"]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{message}");
    assert!(message.contains("exited with code 78 before it was ready"), "{message}");
    assert!(message.contains("token.key"), "what the worker said is missing: {message}");
    assert_eq!(cluster.ready_workers(), before);
    std::fs::write(&key, good).unwrap();
    assert_reloads(&cluster);
}

#[test]
fn an_invalid_configuration_is_told_with_its_place_and_nothing_changes() {
    let mut cluster = Cluster::builder().start();
    let before = cluster.ready_workers();
    cluster.configure("[supervisor]\nworkres = 4\n[http]\nkeep_alive = \"5 parsecs\"\n");
    let output = cluster.command(&["reload"]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{message}");
    assert!(message.contains("bellwether.toml:2:1: ") && message.contains("bellwether.toml:4:14: "), "{message}");
    cluster.signal(Signal::SIGHUP);
    eventually(Duration::from_secs(5), || cluster.output().contains("bellwether.toml:2:1: "));
    assert_eq!(cluster.ready_workers(), before);
    // The file that counts is the one of the moment.
    cluster.configure("[supervisor]\nworkers = 7\n[http]\nexpose_worker = false\n");
    assert_reloads(&cluster);
    // A worker takes what is queued before it closes its socket, so the first answers may be its.
    eventually(Duration::from_secs(2), || cluster.get("/livez").header("x-served-by").is_none());
    assert_eq!(cluster.ready_workers().len(), 2, "a flag weighs more than the file");
}

#[test]
fn a_slow_request_is_finished_by_the_old_worker_which_then_ends() {
    let cluster = Cluster::builder().configuration(QUICK_CANARY).start();
    let before = cluster.ready_workers();
    let traffic = Traffic::of(&cluster, &[Kind::Slow]);
    eventually(Duration::from_secs(5), || cluster.total(|name| name.starts_with("http_server_active_requests")) >= 4.0);
    let begun = Instant::now();
    assert_reloads(&cluster);
    assert!(begun.elapsed() < SLOW, "the reload waited for what is in flight");
    let report = traffic.end();
    report.assert_clean(0);
    let answered = Instant::now();
    eventually(Duration::from_millis(1_200), || before.iter().all(|worker| !process::is_alive(worker.pid)));
    println!("all old workers gone {:?} after the last answer", answered.elapsed());
}

#[test]
fn while_redis_does_not_answer_workers_are_replaced_recycled_and_reloaded_all_the_same() {
    let recycling = format!("{QUICK_CANARY}max_requests = 1500\n");
    let cluster = Cluster::builder().configuration(&recycling).start();
    let replaced = |reason: &str| {
        let name = format!("bellwether_worker_restarts_total{{reason=\"{reason}\"}}");
        cluster.total(|known| known == name)
    };
    let redis = cluster.redis_pid();
    assert!(process::signal(redis, Signal::SIGSTOP));
    let traffic = Traffic::of(&cluster, &[Kind::Busy, Kind::PerRequest, Kind::Balancer]);
    cluster.never_below(2, || {
        eventually(Duration::from_secs(30), || replaced("requests") >= 3.0);
        assert_reloads(&cluster);
    });
    traffic.end().assert_clean(RETRIED_AT_MOST);
    let victim = cluster.ready_workers()[0].clone();
    assert!(process::signal(victim.pid, Signal::SIGKILL));
    eventually(Duration::from_secs(5), || {
        cluster.ready_workers().iter().any(|worker| worker.id == victim.id && worker.pid != victim.pid)
    });
    assert_eq!((replaced("crash"), replaced("reload")), (1.0, 2.0));
    assert!(process::signal(redis, Signal::SIGCONT));
    eventually(Duration::from_secs(10), || cluster.get("/health").text().contains("\"status\":\"pass\""));
}
