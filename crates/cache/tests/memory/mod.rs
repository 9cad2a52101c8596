//! A worker whose memory holds a value with three tags.

use std::time::Duration;

use cache::{Cache, Caches, Config, Hit, LoadError, Loaded, Namespace, Options, Source};
use futures_util::FutureExt as _;
use redis_store::{RedisStore, Role, Url};
use telemetry::Registry;
use test_support::{Redis, eventually};
use tokio::runtime::{Builder, Runtime};

const KEY: &str = "01995f0a-7c7f-7c44-a1a3-5d4a1c1b9d10";
const LONG: Duration = Duration::from_secs(3600);

pub(crate) struct Worker {
    products: Cache<String>,
    options: Options,
    _runtime: Runtime,
    _redis: Redis,
}

impl Worker {
    pub(crate) fn start() -> Self {
        let redis = Redis::start();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (products, options) = runtime.block_on(async {
            let url = Url::parse(&redis.unix_url()).unwrap();
            let settings = redis_store::Config { url, command_timeout: Duration::from_secs(5) };
            let store = RedisStore::connect(&settings, Role::Cache);
            store.connected().await;
            // Nothing is read from Redis while the caller is measured.
            let config = Config { ttl: LONG, l1_ttl: LONG, disconnected_ttl: LONG, ..Config::default() };
            let caches = Caches::new(config, store, &Registry::new());
            (caches.namespace(Namespace { name: "product", schema: 1 }), caches.options())
        });
        let worker = Self { products, options, _runtime: runtime, _redis: redis };
        eventually(Duration::from_secs(20), || {
            let hit = worker._runtime.block_on(worker.read());
            hit.unwrap().source == Source::L1
        });
        worker
    }

    async fn read(&self) -> Result<Hit<String>, LoadError> {
        let load = async || {
            let tags = ["product:7", "category:lamps", "vendor:12"].map(str::to_owned).to_vec();
            Ok::<_, LoadError>(Loaded { tags, ..Some("a lamp".to_owned()).into() })
        };
        self.products.get_or_load(KEY, &self.options, load).await
    }

    /// Reads the value from memory, which waits for nothing.
    pub(crate) fn hit(&self) -> Hit<String> {
        self.read().now_or_never().unwrap().unwrap()
    }
}
