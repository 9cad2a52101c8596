//! Serving: everything a worker has is built here, once, on the one thread that answers requests.

use std::rc::Rc;

use anyhow::Context as _;
use api::AppState;
use cache::Caches;
use config::Settings;
use edge::{Listener, Phase, Report, Server};
use rate_limit::Limiter;
use redis_store::{RedisStore, Role};
use store::{Schema, Store};
use supervise::worker_side::Inherited;
use telemetry::Registry;
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::exit::Failure;
use crate::link::Link;
use crate::settings;
use crate::signals::Signals;

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
    registry
        .gauge("bellwether_worker_info", "1, labelled with the worker that answers.", &[("worker", &name)])
        .set(1.0);
    let state = build(settings, &inherited, &registry, phases.clone()).await?;

    let link = match inherited.channel.take() {
        Some(descriptor) => Some(Rc::new(Link::open(descriptor).await?)),
        None => None,
    };
    let listeners = listeners(std::mem::take(&mut inherited.listeners))?;
    let admin_listeners = listeners_of_admin(&mut inherited)?;
    let followers = Followers::start(signals, link.clone(), phase, &server);

    inherited.notify("READY=1").context("cannot tell the supervisor that this worker is ready")?;
    tracing::info!(worker = inherited.worker_id, generation = inherited.generation, "Worker is ready");
    let (report, admin_report) = tokio::join!(
        server.serve(listeners, api::application(state), phases.clone()),
        admin.serve(admin_listeners, api::admin_application(registry), phases),
    );
    let report = report.context("cannot serve")?;
    admin_report.context("cannot serve the admin listener")?;
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
) -> anyhow::Result<AppState> {
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
    let limits = settings::rate_limit(settings, inherited, keys.derive_key("rate-limit identities"));
    let limiter = Limiter::new(limits, &redis, registry).map_err(Failure::configuration)?;
    let caches = Caches::new(settings::cache(settings, inherited.workers), cache_redis.clone(), registry);
    Ok(AppState {
        catalogue: api::Catalogue::new(store.clone(), &caches),
        limiter,
        announces_limits: !settings.rate_limit.headers.is_empty(),
        keys,
        store,
        redis,
        cache_redis,
        phase,
        worker_id: inherited.worker_id,
        version: env!("CARGO_PKG_VERSION"),
    })
}

fn listeners(inherited: Vec<supervise::worker_side::Listener>) -> anyhow::Result<Vec<Listener>> {
    let opened = inherited.into_iter().map(|listener| Listener::from_descriptor(listener.descriptor));
    opened.collect::<Result<_, _>>().context("an inherited socket cannot be used")
}

fn listeners_of_admin(inherited: &mut Inherited) -> anyhow::Result<Vec<Listener>> {
    listeners(inherited.admin.take().into_iter().collect())
}

/// The tasks beside the server. They end with it.
struct Followers(Vec<tokio::task::JoinHandle<()>>);

impl Followers {
    fn start(signals: Signals, link: Option<Rc<Link>>, phase: watch::Sender<Phase>, server: &Server) -> Self {
        let mut tasks = Vec::new();
        if let Some(link) = link {
            let (reporter, statistics) = (Rc::clone(&link), server.statistics());
            tasks.push(spawn_local(logged(
                "reports to the supervisor",
                async move { reporter.report(statistics).await },
            )));
            let phase = phase.clone();
            tasks.push(spawn_local(logged("orders of the supervisor", async move { link.obey(phase).await })));
        }
        tasks.push(spawn_local(logged("signals", signals.follow(phase))));
        Self(tasks)
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
