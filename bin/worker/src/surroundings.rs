//! What is warned about once, soon after a start, because it breaks promises in silence.

use std::time::Duration;

use redis_store::Config;

/// A Redis that cannot be asked is asked again after this.
const ASKED_AGAIN: Duration = Duration::from_secs(30);

/// Warns when Redis may throw away what limits and other state are counted in. Ends as soon as Redis has answered.
pub(crate) async fn watch_eviction(config: Config) -> anyhow::Result<()> {
    let policy = loop {
        match redis_store::examine(&config, 0).await {
            Ok(examination) => break examination.maxmemory_policy,
            Err(_) => tokio::time::sleep(ASKED_AGAIN).await,
        }
    };
    if policy != "noeviction" {
        tracing::warn!(
            code = "redis-evicts",
            redis.maxmemory_policy = policy,
            "Redis evicts keys when its memory is full: limits and other state vanish then. Set maxmemory-policy to noeviction"
        );
    }
    Ok(())
}
