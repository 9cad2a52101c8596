//! `worker cache`: what Redis holds for a key, and what is to be forgotten. `supervisor cache` becomes this.

use std::num::NonZeroU32;
use std::time::Duration;

use api::{Catalogue, Warmed};
use cache::{CacheKey, Caches, Inspection, Invalidation, Readable};
use config::Settings;
use redis_store::{RedisStore, Role};
use serde_json::{Value, json};
use store::Store;
use telemetry::Registry;

use super::print;
use super::table::{columns, duration};
use crate::arguments::{CacheCommand, Entry, Flush};
use crate::exit::Failure;
use crate::settings;

/// The name of the format of what `--json` prints.
const SCHEMA: &str = "bellwether.cache/v1";

/// How long the connection to Redis may take.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(command: CacheCommand, settings: &Settings) -> anyhow::Result<()> {
    let caches = open(settings).await?;
    let caches = if let CacheCommand::Warm { .. } = command { caches } else { opened(caches) };
    match command {
        CacheCommand::Get { entry, json } => {
            let found = caches.inspect(&key(&caches, &entry)?).await.map_err(failed)?;
            print(&if json { document(&entry, found.as_ref()) } else { page(&entry, found.as_ref()) })
        }
        CacheCommand::Del(entry) => {
            invalidate(&caches, &[key(&caches, &entry)?]).await?;
            print(&format!("forgotten by every worker: {} {}", entry.namespace, entry.key))
        }
        CacheCommand::Warm { rate } => {
            let Warmed { cached, refused } = warm(caches, settings, rate).await?;
            print(&format!("{cached} products are cached"))?;
            match refused {
                0 => Ok(()),
                _ => Err(Failure::unavailable(format!("redis did not take {refused} products; try again")).into()),
            }
        }
        CacheCommand::Flush(flush) => print(&forget(&caches, &flush).await?),
    }
}

async fn open(settings: &Settings) -> anyhow::Result<Caches> {
    let (_, config) = settings::redis(settings)?;
    let store = RedisStore::connect(&config, Role::Cache);
    if tokio::time::timeout(PATIENCE, store.connected()).await.is_err() {
        let address = store.address();
        return Err(Failure::unavailable(format!("cannot reach {address}; `supervisor doctor` tells more")).into());
    }
    let caches = Caches::new(settings::cache(settings, 1), store, &Registry::new());
    Ok(caches)
}

/// For looking and forgetting: no value is read.
fn opened(caches: Caches) -> Caches {
    for namespace in api::NAMESPACES {
        caches.namespace::<()>(namespace);
    }
    caches
}

async fn warm(caches: Caches, settings: &Settings, rate: NonZeroU32) -> anyhow::Result<Warmed> {
    let store = Store::connect(&settings::database(settings), &Registry::new()).await.map_err(Failure::from)?;
    let spinner = super::spinner("{spinner} {pos} products, {per_sec}");
    let warmed =
        Catalogue::new(store, &caches).warm(rate, |done| spinner.set_position(done.cached + done.refused)).await;
    spinner.finish_and_clear();
    Ok(warmed.map_err(|error| Failure::unavailable(format!("not all products could be loaded: {error}")))?)
}

fn key(caches: &Caches, entry: &Entry) -> Result<CacheKey, Failure> {
    caches.key(&entry.namespace, &entry.key).ok_or_else(|| unknown(&entry.namespace))
}

fn unknown(namespace: &str) -> Failure {
    let names = api::NAMESPACES.map(|namespace| namespace.name).join(", ");
    Failure::usage(format!("there is no namespace `{namespace}`; there are: {names}"))
}

async fn invalidate(caches: &Caches, keys: &[CacheKey]) -> Result<(), Failure> {
    match caches.invalidate(keys).await {
        Invalidation::Published => Ok(()),
        Invalidation::Queued => Err(Failure::unavailable("redis went away; nothing is known to be forgotten")),
    }
}

async fn forget(caches: &Caches, flush: &Flush) -> anyhow::Result<String> {
    if !flush.tags.is_empty() {
        let tags: Vec<CacheKey> = flush.tags.iter().map(|tag| caches.tag(tag)).collect();
        invalidate(caches, &tags).await?;
        return Ok(format!("forgotten by every worker: what carries {}", flush.tags.join(" or ")));
    }
    let all = api::NAMESPACES.map(|namespace| namespace.name);
    let meant = flush.namespace.as_deref().map_or(all.to_vec(), |namespace| vec![namespace]);
    for namespace in &meant {
        if !caches.clear(namespace).await.map_err(failed)? {
            return Err(unknown(namespace).into());
        }
    }
    Ok(format!("forgotten by every worker: {}", meant.join(", ")))
}

fn page(entry: &Entry, found: Option<&Inspection>) -> String {
    let Some(Inspection { bytes, readable }) = found else {
        return format!("nothing is cached for {} {}", entry.namespace, entry.key);
    };
    let size = ["size".to_owned(), format!("{bytes} bytes")];
    let Some(Readable { absent, fresh_for, expires_in, load_time, tags }) = readable else {
        return columns(&[["state".to_owned(), "another release's, unreadable here".to_owned()], size]);
    };
    let row = |name: &str, value: String| [name.to_owned(), value];
    let state = match (absent, fresh_for.is_zero()) {
        (true, _) => "there is no such row",
        (false, true) => "stale, stands in while a new one is loaded",
        (false, false) => "fresh",
    };
    let tags = if tags.is_empty() { "-".to_owned() } else { tags.join(", ") };
    columns(&[
        row("state", state.to_owned()),
        row("fresh for", duration(*fresh_for)),
        row("expires in", duration(*expires_in)),
        row("loaded in", duration(*load_time)),
        size,
        row("tags", tags),
    ])
}

fn document(entry: &Entry, found: Option<&Inspection>) -> String {
    let of_readable = |readable: &Readable| {
        json!({
            "absent": readable.absent,
            "fresh_seconds": readable.fresh_for.as_secs_f64(),
            "expires_seconds": readable.expires_in.as_secs_f64(),
            "load_seconds": readable.load_time.as_secs_f64(),
            "tags": readable.tags,
        })
    };
    let entry_of = |found: &Inspection| {
        let mut entry = found.readable.as_ref().map_or_else(|| json!({}), of_readable);
        entry["readable"] = found.readable.is_some().into();
        entry["bytes"] = found.bytes.into();
        entry
    };
    let entry_found = found.map_or(Value::Null, entry_of);
    json!({ "schema": SCHEMA, "namespace": entry.namespace, "key": entry.key, "entry": entry_found }).to_string()
}

fn failed(error: redis_store::Error) -> Failure {
    if error.is_outage() { Failure::unavailable(error) } else { Failure::failed(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { namespace: "product".to_owned(), key: "lamp".to_owned() }
    }

    fn found(fresh_seconds: u64) -> Inspection {
        let readable = Readable {
            absent: false,
            fresh_for: Duration::from_secs(fresh_seconds),
            expires_in: Duration::from_secs(342),
            load_time: Duration::from_millis(3),
            tags: vec!["product:7".to_owned(), "vendor:12".to_owned()],
        };
        Inspection { bytes: 643, readable: Some(readable) }
    }

    #[test]
    fn an_entry_is_a_page_for_people() {
        let expected = "\
state       fresh
fresh for   42s
expires in  5m42s
loaded in   3ms
size        643 bytes
tags        product:7, vendor:12";
        assert_eq!(page(&entry(), Some(&found(42))), expected);
        assert!(page(&entry(), Some(&found(0))).starts_with("state       stale, stands in"));
        assert_eq!(page(&entry(), None), "nothing is cached for product lamp");
        let unreadable = Inspection { readable: None, ..found(1) };
        assert_eq!(page(&entry(), Some(&unreadable)), "state  another release's, unreadable here\nsize   643 bytes");
    }

    #[test]
    fn and_a_document_for_programs() {
        let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let some = parse(document(&entry(), Some(&found(42))));
        assert_eq!((&some["schema"], &some["entry"]["fresh_seconds"]), (&json!(SCHEMA), &json!(42.0)));
        assert_eq!((&some["entry"]["readable"], &some["entry"]["tags"][1]), (&json!(true), &json!("vendor:12")));
        assert_eq!(parse(document(&entry(), None))["entry"], Value::Null);
        let unreadable = parse(document(&entry(), Some(&Inspection { readable: None, ..found(1) })));
        assert_eq!(unreadable["entry"], json!({ "readable": false, "bytes": 643 }));
    }
}
