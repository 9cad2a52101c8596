//! What is warned about once, soon after a start, because it breaks promises in silence.

use std::time::Duration;

use rate_limit::Limiter;
use redis_store::Config;

/// A Redis that cannot be asked is asked again after this.
const ASKED_AGAIN: Duration = Duration::from_secs(30);

/// Looks at the Redis that state is kept in, and ends as soon as it has answered.
pub(crate) async fn look_at_redis(config: Config, limiter: Limiter) -> anyhow::Result<()> {
    let policy = until_answered(async || redis_store::examine(&config, 0).await).await.maxmemory_policy;
    if policy != "noeviction" {
        tracing::warn!(
            code = "redis-evicts",
            redis.maxmemory_policy = policy,
            "Redis evicts keys when its memory is full: limits and other state vanish then. Set maxmemory-policy to noeviction"
        );
    }
    if let Some(key) = until_answered(async || limiter.find_immortal().await).await {
        tracing::warn!(
            code = "rate-limit/immortal-counter",
            key,
            "A counter of a limit has no lifetime: something other than this program wrote it. It gets one when it is counted in next"
        );
    }
    Ok(())
}

async fn until_answered<T, E>(ask: impl AsyncFn() -> Result<T, E>) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(_) => tokio::time::sleep(ASKED_AGAIN).await,
        }
    }
}
