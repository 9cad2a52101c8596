//! What the service depends on and whether it answers: the one source of `/health` and of what the supervisor is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rate_limit::Limiter;
use redis_store::RedisStore;
use store::Store;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The database gets this long to answer; it is slow then, and a monitor wants to know now.
const DATABASE_PATIENCE: Duration = Duration::from_secs(1);

/// Redis in both roles and the database. Cheap to clone; clones share what they know of the database.
#[derive(Clone)]
pub struct Dependencies {
    store: Store,
    redis: RedisStore,
    cache_redis: RedisStore,
    limiter: Limiter,
    /// When the database was asked last, and whether it answered.
    database: Arc<Mutex<Option<(Instant, bool)>>>,
}

/// Whether each of them works at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Works {
    /// Limits are counted for all workers together.
    pub redis: bool,
    /// What one worker caches and invalidates, others see.
    pub cache: bool,
    /// Queries are answered.
    pub database: bool,
}

impl Dependencies {
    /// Redis in its role for limits and for the cache, and what uses them.
    pub fn new(store: Store, redis: RedisStore, cache_redis: RedisStore, limiter: Limiter) -> Self {
        Self { store, redis, cache_redis, limiter, database: Arc::default() }
    }

    /// What works. The database is asked only if its last answer is older than `age`, by one caller for all, and answers within a second
    /// or counts as away; Redis is not asked at all.
    pub async fn look(&self, age: Duration) -> Works {
        let database = self.database_works(age).await;
        let redis = self.is_connected() && self.limiter.is_exact();
        Works { redis, cache: self.cache_redis.is_connected(), database }
    }

    /// Where Redis is in its role for limits.
    pub fn redis_address(&self) -> String {
        self.redis.address()
    }

    /// Where Redis is in its role for the cache.
    pub fn cache_address(&self) -> String {
        self.cache_redis.address()
    }

    /// Where the database is.
    pub fn database_address(&self) -> &str {
        self.store.address()
    }

    /// Whether Redis can be asked about limits.
    pub(crate) fn is_connected(&self) -> bool {
        self.redis.is_connected()
    }

    async fn database_works(&self, age: Duration) -> bool {
        // Held while the database is asked, so that whoever comes meanwhile waits for that answer and does not ask again.
        let mut known = self.database.lock().await;
        if let Some((at, works)) = *known
            && at.elapsed() <= age
        {
            return works;
        }
        let works = matches!(timeout(DATABASE_PATIENCE, self.store.ping()).await, Ok(Ok(())));
        *known = Some((Instant::now(), works));
        works
    }
}
