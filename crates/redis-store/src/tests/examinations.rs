//! What a server says about itself.

use test_support::Redis;

use super::config;
use crate::examine;

#[tokio::test]
async fn a_server_tells_its_version_and_policy_and_every_ping_is_timed() {
    let redis = Redis::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    for url in [redis.url(), redis.unix_url()] {
        let examination = examine(&config(&url), 20).await.unwrap();
        assert!(examination.version.split('.').count() >= 2, "{examination:?}");
        assert_eq!(examination.maxmemory_policy, "allkeys-lru");
        assert_eq!(examination.round_trips.len(), 20);
        assert!(examination.round_trips.is_sorted());
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_examined_says_why_without_the_password() {
    let redis = Redis::start();
    redis.command(&["CONFIG", "SET", "requirepass", "secret"]);
    let wrong = format!("redis://:wrongsecret@{}", redis.address());
    let error = examine(&config(&wrong), 1).await.unwrap_err().to_string();
    assert!(error.contains("WRONGPASS") && !error.contains("secret"), "{error}");
    redis.kill();
    let error = examine(&config(&redis.url()), 1).await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("refused"), "{error}");
}
