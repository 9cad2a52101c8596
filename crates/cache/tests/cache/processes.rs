//! What only processes of their own can show: one that is killed says nothing to anybody, and the kernel knows (trap T8).

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use cache::{LoadError, Source};
use test_support::{Redis, unique_prefix};

use crate::harness::{Database, SOON, Setup};

const URL: &str = "CACHE_TEST_URL";
const PREFIX: &str = "CACHE_TEST_PREFIX";
const LOADING: &str = "the load has begun";

/// Not a test: the process that the tests below start and kill.
#[test]
#[ignore = "it is started by other tests"]
fn holds_a_lease_until_it_is_killed() {
    let (Ok(url), Ok(prefix)) = (env::var(URL), env::var(PREFIX)) else { return };
    let worker = Setup::new(url, &prefix).workers(1).remove(0);
    let never = worker.start(async move |parts| {
        let load = async move || {
            println!("\n{LOADING}");
            std::future::pending::<Result<Option<u64>, LoadError>>().await
        };
        parts.prices.get_or_load("lamp", &parts.options, load).await.map(|hit| hit.source)
    });
    let _ = never.recv_timeout(SOON);
}

/// Kills the process when a test fails.
struct Holder(Child);

impl Holder {
    fn start(url: &str, prefix: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "processes::holds_a_lease_until_it_is_killed", "--ignored", "--nocapture"])
            .env(URL, url)
            .env(PREFIX, prefix)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        assert!(output.lines().any(|line| line.unwrap().contains(LOADING)), "it has ended");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_lease_of_a_killed_process_is_taken_over_in_a_quarter_of_a_second() {
    let url = Redis::shared().url();
    let mut waits = Vec::new();
    for _ in 0..5 {
        let prefix = unique_prefix();
        let worker = Setup::new(url.clone(), &prefix).workers(1).remove(0);
        let database = Database::with(&["lamp"]);
        let mut holder = Holder::start(&url, &prefix);
        let answer = {
            let database = Arc::clone(&database);
            worker.start(async move |parts| (database.read(&parts, "lamp").await.unwrap(), Instant::now()))
        };
        // By now it waits for the other's lease, and goes on waiting while that lives.
        assert!(answer.recv_timeout(Duration::from_millis(600)).is_err());
        let killed = Instant::now();
        holder.0.kill().unwrap();
        let (hit, answered) = answer.recv_timeout(SOON).unwrap();
        assert_eq!((hit.value.as_deref(), hit.source), (Some(&1), Source::Loader));
        assert_eq!(worker.metric("bellwether_cache_leases_taken_over_total"), 1.0);
        waits.push(answered - killed);
    }
    waits.sort_unstable();
    // The lease itself would have lived six seconds; the machine may be busy with other tests.
    assert!(waits[0] <= Duration::from_millis(300) && waits[4] <= Duration::from_secs(2), "{waits:?}");
}
