//! Workers, the database they read, and an oracle that knows how old an answer is.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cache::{Cache, Caches, Config, Hit, Inspection, Invalidation, LoadError, Namespace, Options};
use redis_store::{RedisStore, Role};
use telemetry::Registry;
use test_support::eventually;
use tokio::sync::mpsc as jobs;

/// Long enough for anything that is not supposed to take time.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a worker's jobs are given.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) caches: Caches,
    pub(crate) prices: Cache<u64>,
    pub(crate) options: Options,
}

type Job = Box<dyn FnOnce(Parts) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// One worker: a thread with a runtime, a connection and a cache. It dies without a word when dropped, as by SIGKILL.
pub(crate) struct Worker {
    jobs: Option<jobs::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) registry: Registry,
}

/// How a worker is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) url: String,
    pub(crate) config: Config,
    pub(crate) schema: u32,
    pub(crate) load_timeout: Duration,
    /// Long by default: a machine that is busy with other tests is not an outage.
    pub(crate) command_timeout: Duration,
}

impl Setup {
    pub(crate) fn new(url: String, prefix: &str) -> Self {
        Self {
            url,
            config: Config { prefix: prefix.to_owned(), l1_bytes: 8 << 20, ..Config::default() },
            schema: 1,
            load_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(3),
        }
    }

    pub(crate) fn worker(&self) -> Worker {
        let (sender, mut receiver) = jobs::unbounded_channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        let setup = self.clone();
        let registry = Registry::new();
        let theirs = registry.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let redis = redis_store::Config {
                    url: redis_store::Url::parse(&setup.url).unwrap(),
                    command_timeout: setup.command_timeout,
                };
                let store = RedisStore::connect(&redis, Role::Cache);
                store.first_attempt().await;
                let caches = Caches::new(setup.config.clone(), store, &theirs);
                let prices = caches.namespace(Namespace { name: "price", schema: setup.schema });
                let options = Options { load_timeout: setup.load_timeout, ..caches.options() };
                ready.send(()).unwrap();
                while let Some(job) = receiver.recv().await {
                    let parts = Parts { caches: caches.clone(), prices: prices.clone(), options };
                    tokio::task::spawn_local(job(parts));
                }
            });
        });
        is_ready.recv_timeout(SOON).unwrap();
        Worker { jobs: Some(sender), thread: Some(thread), registry }
    }

    /// `count` workers whose memory is in step with Redis.
    pub(crate) fn workers(&self, count: usize) -> Vec<Worker> {
        let workers: Vec<Worker> = (0..count).map(|_| self.worker()).collect();
        for worker in &workers {
            worker.wait_until_trusted();
        }
        workers
    }
}

impl Worker {
    /// Starts `job` and returns where its result will come from.
    pub(crate) fn start<T, F, Fut>(&self, job: F) -> mpsc::Receiver<T>
    where
        T: Send + 'static,
        F: FnOnce(Parts) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (sender, receiver) = mpsc::channel();
        let job: Job = Box::new(move |parts| {
            Box::pin(async move {
                // The test may not want the result any more.
                let _ = sender.send(job(parts).await);
            })
        });
        self.jobs.as_ref().unwrap().send(job).ok().unwrap();
        receiver
    }

    /// Runs `job` to its end.
    pub(crate) fn run<T, F, Fut>(&self, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(Parts) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.start(job).recv_timeout(SOON).expect("the job ends")
    }

    pub(crate) fn read(&self, database: &Arc<Database>, key: &str) -> Hit<u64> {
        self.try_read(database, key).unwrap()
    }

    pub(crate) fn try_read(&self, database: &Arc<Database>, key: &str) -> Result<Hit<u64>, LoadError> {
        let (database, key) = (Arc::clone(database), key.to_owned());
        self.run(async move |parts| database.read(&parts, &key).await)
    }

    /// What a request that changes a row does.
    pub(crate) fn write(&self, database: &Arc<Database>, key: &str) -> Invalidation {
        let (database, key) = (Arc::clone(database), key.to_owned());
        self.run(async move |parts| {
            database.commit(&key);
            parts.prices.invalidate(&[&key]).await
        })
    }

    /// What Redis holds for a key.
    pub(crate) fn inspect(&self, key: &str) -> Option<Inspection> {
        let key = key.to_owned();
        self.run(async move |parts| parts.caches.inspect(&parts.prices.key(&key)).await).unwrap()
    }

    /// The value of a metric as it is exposed, by name and labels.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.registry.snapshot().render();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in:\n{text}")).parse().unwrap()
    }

    /// Waits until entries are answered from memory.
    pub(crate) fn wait_until_trusted(&self) {
        let database = Arc::new(Database::default());
        eventually(SOON, || self.read(&database, "is memory trusted").source == cache::Source::L1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// The truth: per key a number that every write raises, and when it did.
#[derive(Default)]
pub(crate) struct Database {
    rows: Mutex<HashMap<String, Vec<Instant>>>,
    loads: AtomicU64,
}

impl Database {
    pub(crate) fn with(keys: &[&str]) -> Arc<Self> {
        let database = Self::default();
        for key in keys {
            database.commit(key);
        }
        Arc::new(database)
    }

    /// Writes the row and returns its new value; the first one is 1.
    pub(crate) fn commit(&self, key: &str) -> u64 {
        let mut rows = self.rows();
        let commits = rows.entry(key.to_owned()).or_default();
        commits.push(Instant::now());
        commits.len() as u64
    }

    /// Reads the row as a loader does.
    pub(crate) fn load(&self, key: &str) -> Option<u64> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.value(key)
    }

    /// The truth about the row.
    pub(crate) fn value(&self, key: &str) -> Option<u64> {
        self.rows().get(key).map(|commits| commits.len() as u64)
    }

    /// How often a loader has run.
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    /// A read through a cache.
    pub(crate) async fn read(self: &Arc<Self>, parts: &Parts, key: &str) -> Result<Hit<u64>, LoadError> {
        let (database, owned) = (Arc::clone(self), key.to_owned());
        parts.prices.get_or_load(key, &parts.options, async move || Ok::<_, LoadError>(database.load(&owned))).await
    }

    /// How long the row had already been newer than `value` when a read began at `start`.
    pub(crate) fn staleness(&self, key: &str, value: Option<u64>, start: Instant) -> Duration {
        let rows = self.rows();
        let next = rows.get(key).and_then(|commits| commits.get(value.unwrap_or(0) as usize));
        next.map_or(Duration::ZERO, |commit| start.saturating_duration_since(*commit))
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<String, Vec<Instant>>> {
        self.rows.lock().unwrap()
    }
}
