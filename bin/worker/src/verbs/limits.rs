//! `worker limits`: what is limited, what is left for somebody, and changes by hand. `supervisor limits` becomes this.

mod list;
mod standing;
mod who;

use std::time::Duration;

use config::Settings;
use rate_limit::{Limiter, PolicySet, Request, Share};
use redis_store::{RedisStore, Role};
use telemetry::Registry;

pub(crate) use self::who::Who;
use super::{print, table};
use crate::arguments::{LimitsCommand, Whom};
use crate::exit::Failure;
use crate::settings;

/// The name of the format of what `--json` prints.
const SCHEMA: &str = "bellwether.limits/v1";

/// How long the connection to Redis may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// One client under the policies that are meant, and the limiter that knows them.
struct Found {
    limiter: Limiter,
    set: PolicySet,
    request: Request,
}

pub(super) async fn run(command: LimitsCommand, settings: &Settings) -> anyhow::Result<()> {
    match command {
        LimitsCommand::Ls { json } => print(&list::text(&settings.rate_limit, json)),
        LimitsCommand::Show { whom, json } => {
            let found = find(settings, &whom).await?;
            print(&standing::of(&found).await.map_err(failed)?.text(&whom.who, json))
        }
        LimitsCommand::Reset(whom) => {
            let found = find(settings, &whom).await?;
            found.limiter.reset(&found.request).await.map_err(failed)?;
            print(&format!("{} begins afresh under {}", whom.who, found.names()))
        }
        LimitsCommand::Block { whom, duration } => {
            let found = find(settings, &whom).await?;
            found.limiter.block(&found.request, duration).await.map_err(failed)?;
            print(&format!("{} is blocked for {} under {}", whom.who, table::duration(duration), found.names()))
        }
        LimitsCommand::Unblock(whom) => {
            let found = find(settings, &whom).await?;
            found.limiter.unblock(&found.request).await.map_err(failed)?;
            print(&format!("{} is not blocked under {}", whom.who, found.names()))
        }
    }
}

impl Found {
    fn names(&self) -> String {
        self.limiter.policies().names(self.set).collect::<Vec<_>>().join(", ")
    }
}

/// Everything that can be said without Redis is said before it is asked for.
async fn find(settings: &Settings, whom: &Whom) -> anyhow::Result<Found> {
    require_policies(settings)?;
    let (config, _) = settings::redis(settings)?;
    let store = RedisStore::connect(&config, Role::State);
    let limiter = Limiter::new(&limits(settings)?, &store, &Registry::new()).map_err(Failure::configuration)?;
    let set = meant(&limiter, settings, whom)?;
    let request = whom.who.request(&limiter, set)?;
    if tokio::time::timeout(PATIENCE, store.connected()).await.is_err() {
        let address = store.address();
        return Err(Failure::unavailable(format!("cannot reach {address}; `supervisor doctor` tells more")).into());
    }
    Ok(Found { limiter, set, request })
}

fn require_policies(settings: &Settings) -> Result<(), Failure> {
    let limits = &settings.rate_limit;
    if !limits.enabled {
        return Err(Failure::configuration("nothing is limited: rate_limit.enabled is false"));
    }
    if limits.policies.is_empty() {
        return Err(Failure::configuration(
            "nothing is limited: there is no [[rate_limit.policy]] in the configuration",
        ));
    }
    Ok(())
}

/// The limits as the workers have them, but that nobody's request waits for these answers.
fn limits(settings: &Settings) -> Result<rate_limit::Config, Failure> {
    let path = &settings.auth.token_key_file;
    if !path.exists() {
        let path = path.display();
        return Err(Failure::configuration(format!(
            "no worker has ever run with this configuration: there is no {path}"
        )));
    }
    let keys = auth::Keys::load_or_create(path).map_err(Failure::configuration)?;
    let share = Share { index: 0, workers: 1 };
    let timeout = settings.redis.command_timeout;
    let key = keys.derive_key(settings::IDENTITIES);
    Ok(rate_limit::Config { timeout, ..settings::rate_limit(settings, share, key) })
}

/// The policies that were named, else all that count by this kind of key.
fn meant(limiter: &Limiter, settings: &Settings, whom: &Whom) -> Result<PolicySet, Failure> {
    let (policies, counting) = (limiter.policies(), whom.who.counting(limiter.policies()));
    let there_are = || format!("there are: {}", list::summary(&settings.rate_limit));
    if whom.policies.is_empty() {
        if counting.is_empty() {
            return Err(Failure::usage(format!("no policy counts by {}; {}", whom.who.kind(), there_are())));
        }
        return Ok(counting);
    }
    let mut set = PolicySet::default();
    for name in &whom.policies {
        let Some(named) = policies.named(name) else {
            return Err(Failure::usage(format!("there is no policy `{name}`; {}", there_are())));
        };
        if named.and(counting).is_empty() {
            let kind = whom.who.kind();
            return Err(Failure::usage(format!("policy `{name}` does not count by {kind}; {}", there_are())));
        }
        set = set.or(named);
    }
    Ok(set)
}

fn failed(error: redis_store::Error) -> Failure {
    if error.is_outage() { Failure::unavailable(error) } else { Failure::failed(error) }
}
