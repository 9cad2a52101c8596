//! Serving: everything a worker has is built here, once, on the one thread that answers requests.

use std::rc::Rc;

use anyhow::Context as _;
use api::{AppState, Dependencies, Limits, Metrics};
use cache::Caches;
use cluster::{Host, Member, Membership};
use config::Settings;
use edge::{Listener, Phase, Report, Server, Statistics};
use rate_limit::{Limiter, LoginGuard, Share};
use redis_store::{RedisStore, Role};
use store::{Schema, Store};
use supervise::worker_side::Inherited;
use telemetry::{Combine, Registry};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use crate::divided::Divided;
use crate::exit::Failure;
use crate::link::{Governed, Link};
use crate::settings;
use crate::signals::Signals;
use crate::surroundings;

/// How many may wait for the metrics of all workers at a time.
const METRICS_QUESTIONS: usize = 16;

/// Serves until told to stop, and tells how the drain went.
pub(crate) async fn serve(settings: &Settings, mut inherited: Inherited) -> anyhow::Result<Report> {
    let (phase, phases) = watch::channel(Phase::Serve);
    let signals = Signals::take_over()?;
    inherited.exit_when_orphaned().context("cannot watch over the supervisor")?;
    let registry = Registry::new();
    let server =
        Server::new(settings::edge(settings, inherited.worker_id)?, &registry).map_err(Failure::configuration)?;
    let admin = Server::new(edge::Config::default(), &Registry::new()).map_err(Failure::configuration)?;
    let name = format!("w{}", inherited.worker_id);
    // During a replacement a slot has two workers of one name, and still is one.
    registry
        .gauge_combined("bellwether_worker_info", "1 for every worker that runs.", &[("worker", &name)], Combine::Max)
        .set(1.0);
    let (state, divided) = build(settings, &inherited, &registry, phases.clone()).await?;
    let limiter = state.limits.limiter().clone();

    let link = match inherited.channel.take() {
        Some(descriptor) => Some(Rc::new(Link::open(descriptor, &registry).await?)),
        None => None,
    };
    let listeners = listeners(std::mem::take(&mut inherited.listeners))?;
    let admin_listeners = listeners_of_admin(&mut inherited)?;
    let mut followers = Followers::default();
    followers.add("signals", signals.follow(phase.clone()));
    followers.add("other hosts", divided.clone().follow());
    // One of the workers is enough to say it.
    if inherited.worker_id == 0 {
        let (state_redis, _) = settings::redis(settings)?;
        followers.add("the state of Redis", surroundings::look_at_redis(state_redis, limiter.clone()));
    }
    let metrics = match &link {
        Some(link) => {
            // Before it is ready, so that not even one that hangs in its first second is overlooked.
            link.say_alive().await?;
            let governed = Governed { phase, adoption: server.adoption(), divided };
            followers.follow(link, governed, server.statistics(), state.dependencies.clone())
        }
        None => Metrics::Own(registry),
    };

    inherited.notify("READY=1").context("cannot tell the supervisor that this worker is ready")?;
    tracing::info!(worker = inherited.worker_id, generation = inherited.generation, "Worker is ready");
    let closed = server.closed();
    let (report, admin_report, told) = tokio::join!(
        server.serve(listeners, api::application(state), phases.clone()),
        admin.serve(admin_listeners, api::admin_application(metrics), phases),
        async {
            closed.await;
            inherited.notify("STOPPING=1")
        },
    );
    let report = report.context("cannot serve")?;
    admin_report.context("cannot serve the admin listener")?;
    told.context("cannot tell the supervisor that this worker accepts no more")?;
    // What it was granted ahead is of use to others.
    limiter.close().await;
    if let Some(link) = &link {
        link.say_drained(report.cut).await;
    }
    drop(followers);
    tracing::info!(served = report.served, cut = report.cut, "Worker has drained");
    Ok(report)
}

/// Connects to everything and waits until the first attempt at each has ended, either way: a worker whose Redis is away serves too.
async fn build(
    settings: &Settings,
    inherited: &Inherited,
    registry: &Registry,
    phase: watch::Receiver<Phase>,
) -> anyhow::Result<(AppState, Divided)> {
    let (state_redis, cache_redis) = settings::redis(settings)?;
    let redis = RedisStore::connect(&state_redis, Role::State);
    let cache_redis = RedisStore::connect(&cache_redis, Role::Cache);
    let store = Store::connect(&settings::database(settings), registry).await.map_err(Failure::from)?;
    let (_, _, schema) = tokio::join!(redis.first_attempt(), cache_redis.first_attempt(), store.schema());
    match schema {
        Ok(Schema::Current) => {}
        Ok(Schema::Older { pending }) => {
            let pending = pending.join(", ");
            return Err(
                Failure::configuration(format!("the database has to be migrated first; pending: {pending}")).into()
            );
        }
        Ok(Schema::Newer { unknown }) => tracing::warn!(?unknown, "Database is newer than this program"),
        Err(error) => tracing::warn!(%error, "Database does not answer, serving what is cached"),
    }
    let keys = auth::Keys::load_or_create(&settings.auth.token_key_file).map_err(Failure::configuration)?;
    let share = Share { index: inherited.worker_id, workers: inherited.workers };
    let limits = settings::rate_limit(settings, share, keys.derive_key(settings::IDENTITIES));
    let limiter = Limiter::new(&limits, &redis, registry).map_err(Failure::configuration)?;
    let login = LoginGuard::new(settings::login(&limits), &redis, registry);
    let own = Member { host: Host::of_this_process(), worker: inherited.worker_id };
    let membership = Membership::join(&redis, &settings.redis.prefix, own, registry);
    let caches = Caches::new(settings::cache(settings, inherited.workers), cache_redis.clone(), registry);
    let state = AppState {
        catalogue: api::Catalogue::new(store.clone(), &caches),
        dependencies: Dependencies::new(store, redis, cache_redis, limiter.clone()),
        limits: Limits::new(limiter.clone(), login, settings::limits(settings)?),
        keys,
        phase,
        worker_id: inherited.worker_id,
        version: env!("CARGO_PKG_VERSION"),
    };
    let divided = Divided::new(own, inherited.workers, limiter, caches, settings.cache.l1_budget.bytes(), membership);
    Ok((state, divided))
}

fn listeners(inherited: Vec<supervise::worker_side::Listener>) -> anyhow::Result<Vec<Listener>> {
    let opened = inherited.into_iter().map(|listener| Listener::from_descriptor(listener.descriptor));
    opened.collect::<Result<_, _>>().context("an inherited socket cannot be used")
}

fn listeners_of_admin(inherited: &mut Inherited) -> anyhow::Result<Vec<Listener>> {
    listeners(inherited.admin.take().into_iter().collect())
}

/// The tasks beside the server. They end with it.
#[derive(Default)]
struct Followers(Vec<tokio::task::JoinHandle<()>>);

impl Followers {
    /// Starts everything that goes over the channel, and gives the way to ask for the metrics of all workers.
    fn follow(
        &mut self,
        link: &Rc<Link>,
        governed: Governed,
        statistics: Statistics,
        dependencies: Dependencies,
    ) -> Metrics {
        let (questions, asked) = mpsc::channel(METRICS_QUESTIONS);
        let [obeying, reporting, passing, telling] = std::array::from_fn(|_| Rc::clone(link));
        self.add("orders of the supervisor", async move { obeying.obey(governed).await });
        self.add("reports to the supervisor", async move { reporting.report(statistics).await });
        self.add("questions to the supervisor", async move { passing.pass_on(asked).await });
        self.add("the state of what it depends on", async move { telling.tell_of(dependencies).await });
        Metrics::Shared(questions)
    }

    fn add(&mut self, what: &'static str, task: impl Future<Output = anyhow::Result<()>> + 'static) {
        self.0.push(spawn_local(logged(what, task)));
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The supervisor has gone when its channel breaks; the kernel's TERM follows, so nothing but a line in the log is needed.
async fn logged(what: &'static str, task: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = task.await {
        tracing::warn!(error = format!("{error:#}"), "Worker follows no more {what}");
    }
}
