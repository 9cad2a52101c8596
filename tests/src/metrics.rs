//! The metrics of the whole while workers come and go: nothing that was counted is ever taken back, and what happened is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use test_support::http::{self, Request};
use test_support::{Load, Signal, eventually, process, prometheus};

use crate::cluster::Cluster;
use crate::traffic::{Kind, Traffic};

const PATIENCE: Duration = Duration::from_secs(10);

/// How long after one scrape the next one follows.
const SCRAPE_EVERY: Duration = Duration::from_millis(50);

/// What one scrape says, without what may fall: gauges.
#[derive(Debug, Default, Clone, PartialEq)]
struct Counts(BTreeMap<String, f64>);

impl Counts {
    fn of(text: &str) -> Self {
        let kinds: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let counts = |name: &str| {
            let family = name.split('{').next().unwrap_or(name);
            let stems = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| family.strip_suffix(suffix));
            let is_histogram = stems.into_iter().any(|stem| kinds.get(stem) == Some(&"histogram"));
            is_histogram || kinds.get(family) == Some(&"counter")
        };
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        let counted = samples.filter(|(name, _)| counts(name));
        Self(counted.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect())
    }

    /// What has fallen, or is gone, since `before`.
    fn fallen_since(&self, before: &Self) -> Vec<String> {
        let fell = before.0.iter().filter(|(name, value)| self.0.get(*name).is_none_or(|now| now < value));
        fell.map(|(name, value)| format!("{name} from {value} to {:?}", self.0.get(name))).collect()
    }
}

/// What a scraper has seen.
#[derive(Debug, Default)]
struct Scraped {
    scrapes: usize,
    /// The worker that was about to answer was killed.
    unanswered: usize,
    fallen: Vec<String>,
    last: String,
}

/// Scrapes again and again while `body` runs.
fn scraped(cluster: &Cluster, body: impl FnOnce()) -> Scraped {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let (mut seen, mut before) = (Scraped::default(), Counts::default());
            while !ended.load(Ordering::Relaxed) {
                match http::get_blocking(cluster.admin, "/metrics") {
                    Ok(answer) if answer.status == 200 => {
                        let now = Counts::of(&answer.text());
                        seen.fallen.extend(now.fallen_since(&before));
                        seen.scrapes += 1;
                        (before, seen.last) = (now, answer.text());
                    }
                    _ => seen.unanswered += 1,
                }
                std::thread::sleep(SCRAPE_EVERY);
            }
            seen
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        ended.store(true, Ordering::Relaxed);
        let seen = scraper.join().expect("it does not panic");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        seen
    })
}

fn assert_command(cluster: &Cluster, arguments: &[&str]) {
    let output = cluster.command(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn kill_and_wait(cluster: &Cluster, slot: usize) {
    let victim = cluster.ready_workers()[slot].clone();
    assert!(process::signal(victim.pid, Signal::SIGKILL));
    eventually(PATIENCE, || {
        cluster.ready_workers().iter().any(|worker| worker.id == victim.id && worker.pid != victim.pid)
    });
}

#[test]
fn nothing_that_was_counted_is_ever_taken_back_and_what_happened_is_told() {
    let quick_canary = "[supervisor]\ncanary = \"300ms\"\n";
    let cluster = Cluster::builder().workers(3).configuration(quick_canary).start();
    let traffic = Traffic::of(&cluster, &[Kind::Busy, Kind::PerRequest]);
    let seen = scraped(&cluster, || {
        (0..4).for_each(|kill| kill_and_wait(&cluster, kill % 3));
        (0..2).for_each(|_| assert_command(&cluster, &["reload"]));
        assert_command(&cluster, &["scale", "1"]);
        eventually(PATIENCE, || cluster.status().unwrap()["workers"].as_array().unwrap().len() == 1);
        assert_command(&cluster, &["upgrade"]);
        eventually(PATIENCE, || cluster.output().contains("goes on in the place of"));
        assert_command(&cluster, &["scale", "2"]);
        assert_command(&cluster, &["restart", "0"]);
        cluster.configure("[supervisor]\nworkres = 1\n");
        assert_eq!(cluster.command(&["reload"]).status.code(), Some(78));
    });
    let answered = traffic.end().succeeded();
    println!("{} scrapes, {} without an answer", seen.scrapes, seen.unanswered);
    assert_eq!((seen.fallen, prometheus::lint(&seen.last)), (vec![], vec![]));
    // One at most for each worker that was killed.
    assert!(seen.scrapes >= 20 && seen.unanswered <= 4, "{} scrapes, {} unanswered", seen.scrapes, seen.unanswered);
    let told = |name: &str| cluster.total(|known| known == name);
    let expected = [
        ("bellwether_workers{state=\"ready\"}", 2.0),
        ("bellwether_workers{state=\"broken\"}", 0.0),
        ("bellwether_worker_restarts_total{reason=\"crash\"}", 4.0),
        ("bellwether_worker_restarts_total{reason=\"reload\"}", 6.0),
        ("bellwether_worker_restarts_total{reason=\"restart\"}", 1.0),
        ("bellwether_reloads_total{result=\"done\"}", 2.0),
        ("bellwether_reloads_total{result=\"refused\"}", 1.0),
        ("bellwether_reloads_total{result=\"rolled_back\"}", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(told(name), value, "{name}");
    }
    // A killed worker takes with it what it had not told yet, which is what it counted within a second.
    let counted = cluster.settled_total(|name| name.starts_with("http_server_request_duration_seconds_count"));
    assert!(counted > answered as f64 / 2.0, "{counted} counted of {answered}");
}

#[test]
fn every_worker_tells_the_same_of_the_whole() {
    let cluster = Cluster::builder().workers(4).start();
    let is_counted = |name: &str| name.starts_with("http_server_request_duration_seconds_count");
    let before = cluster.settled_total(is_counted);
    Load { requests: 400, ..Load::new(cluster.address, "/api/v1/categories") }.run().assert_clean();
    assert_eq!(cluster.settled_total(is_counted), before + 400.0);
    // Any of the workers accepts at the admin address.
    for _ in 0..40 {
        assert_eq!(cluster.total(is_counted), before + 400.0);
    }
    let answer = http::send_blocking(cluster.admin, &Request::get("/metrics")).unwrap();
    assert_eq!(prometheus::lint(&answer.text()), [""; 0]);
    for worker in ["w0", "w1", "w2", "w3"] {
        assert!(answer.text().contains(&format!("bellwether_worker_info{{worker=\"{worker}\"}} 1")), "{worker}");
    }
}
