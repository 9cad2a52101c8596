//! What the supervisor is told about Redis and the database.

use std::time::Duration;

use api::{Dependencies, Works};
use supervise::frame::{Dependency, FromWorker};
use tokio::time::{MissedTickBehavior, interval};

use super::Link;

/// How soon a change is told. Only what is known without asking is looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How old the database's last answer may be.
const DATABASE_AGE: Duration = Duration::from_secs(5);

impl Link {
    /// Tells what this worker depends on, now and whenever it changes.
    pub(crate) async fn tell_of(&self, dependencies: Dependencies) -> anyhow::Result<()> {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            ticks.tick().await;
            let works = dependencies.look(DATABASE_AGE).await;
            if told != Some(works) {
                self.say(&FromWorker::Dependencies(list(&dependencies, works))).await?;
                told = Some(works);
            }
        }
    }
}

fn list(dependencies: &Dependencies, works: Works) -> Vec<Dependency> {
    let one = |name: &str, works, detail: &str| Dependency { name: name.to_owned(), works, detail: detail.to_owned() };
    vec![
        one("redis", works.redis, &dependencies.redis_address()),
        one("cache", works.cache, &dependencies.cache_address()),
        one("database", works.database, dependencies.database_address()),
    ]
}
