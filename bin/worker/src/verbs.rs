//! The verbs: one thing done, then the end.

mod cache;
mod doctor;
pub(crate) mod limits;
mod table;

use std::io::{IsTerminal as _, Write as _};
use std::time::SystemTime;

use anyhow::Context as _;
use auth::Identity;
use config::Settings;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use store::{ListFilter, Schema, Seed, SeedOutcome, SeedSize, Store};
use telemetry::Registry;

use crate::arguments::{Command, DatabaseCommand, hours};
use crate::exit::{BEHIND, Failure};
use crate::settings;

/// Everybody's demo data is the same.
const SEED_NUMBER: u64 = 42;

/// Runs one verb; the value is its exit code.
pub(crate) fn run(command: Command, settings: &Settings) -> anyhow::Result<u8> {
    match command {
        Command::Token { role, vendor, hours: count } => {
            let keys = auth::Keys::load_or_create(&settings.auth.token_key_file).map_err(Failure::configuration)?;
            let identity = Identity { subject: "demo".to_owned(), role: role.into(), vendor_id: vendor };
            print(&keys.issue(&identity, hours(count), SystemTime::now()))?;
            Ok(0)
        }
        Command::Db(command) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("cannot start a runtime")?.block_on(database(command, settings))
        }
        Command::Limits(command) => against_redis(limits::run(command, settings)),
        Command::Cache(command) => against_redis(cache::run(command, settings)),
        Command::Doctor { json } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("cannot start a runtime")?;
            let checks = runtime.block_on(doctor::examine(settings));
            print(&doctor::text(&checks, json))?;
            // What has not answered by now is not waited for.
            runtime.shutdown_background();
            Ok(0)
        }
    }
}

/// Does what has tasks of its own, which are not waited for when it is done.
fn against_redis(verb: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let done = runtime.block_on(verb);
    runtime.shutdown_background();
    done.map(|()| 0)
}

async fn database(command: DatabaseCommand, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::connect(&settings::database(settings), &Registry::new()).await.map_err(Failure::from)?;
    let code = match command {
        DatabaseCommand::Migrate => {
            store.migrate().await.map_err(Failure::from)?;
            0
        }
        DatabaseCommand::Rollback { yes } => {
            anyhow::ensure!(yes, "this deletes the data that the newest migration holds; say --yes if you mean it");
            match store.rollback_newest_migration().await.map_err(Failure::from)? {
                Some(name) => print(&format!("undone: {name}"))?,
                None => print("there is no migration to undo")?,
            }
            0
        }
        DatabaseCommand::Status { json } => status(&store, json).await?,
        DatabaseCommand::Seed { size, if_empty } => {
            seed(&store, size.into(), if_empty).await?;
            0
        }
        DatabaseCommand::Sample => {
            let filter = ListFilter { limit: 1, ..ListFilter::default() };
            let page = store.products().list(&filter).await.map_err(Failure::from)?;
            let product = page.items.first().context("the catalogue is empty")?;
            print(&format!("/api/v1/products/{}", product.slug))?;
            0
        }
    };
    store.close().await.map_err(Failure::from)?;
    Ok(code)
}

fn print(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to stdout")
}

async fn status(store: &Store, as_json: bool) -> anyhow::Result<u8> {
    let schema = store.schema().await.map_err(Failure::from)?;
    let (state, migrations, code) = match schema {
        Schema::Current => ("current", Vec::new(), 0),
        Schema::Older { pending } => ("older", pending, BEHIND),
        Schema::Newer { unknown } => ("newer", unknown, 0),
    };
    if as_json {
        let document = json!({"schema": "bellwether.database/v1", "state": state, "migrations": migrations});
        print(&document.to_string())?;
    } else {
        print(&match state {
            "current" => "the database is up to date".to_owned(),
            "older" => format!("the database is older than this program; pending: {}", migrations.join(", ")),
            _ => format!("the database is newer than this program; unknown here: {}", migrations.join(", ")),
        })?;
    }
    Ok(code)
}

/// Demo data never goes into a catalogue that has products.
async fn seed(store: &Store, size: SeedSize, if_empty: bool) -> anyhow::Result<()> {
    let bar = progress_bar(size.products());
    let outcome = store.seed_if_empty(Seed { size, number: SEED_NUMBER }, |done, _| bar.set_position(done)).await;
    bar.finish_and_clear();
    match outcome.map_err(Failure::from)? {
        SeedOutcome::Seeded { products } => {
            let mut talk = std::io::stderr();
            writeln!(talk, "{products} products added").context("cannot write to stderr")
        }
        SeedOutcome::NotEmpty if if_empty => Ok(()),
        SeedOutcome::NotEmpty => {
            anyhow::bail!("the catalogue is not empty, so nothing was added; --if-empty makes that no error")
        }
    }
}

/// For work whose end nobody knows.
fn spinner(template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn progress_bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} products, {eta} left");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
