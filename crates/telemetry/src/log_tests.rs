//! Tests of the layer: levels, ids and lines as a program sees them.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::request::{RequestContext, in_request};

/// A log in memory.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    pub(crate) fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes `config` the logging of this thread, as long as the guard lives.
pub(crate) fn log_to_memory(config: &LogConfig) -> (Memory, tracing::subscriber::DefaultGuard) {
    let memory = Memory::default();
    let filter = parse_level(&config.level).unwrap();
    let layer = layer(config, filter, Output::direct(memory.clone()));
    (memory, tracing::subscriber::set_default(tracing_subscriber::registry().with(layer)))
}

fn json() -> LogConfig {
    LogConfig { format: Format::Json, ..LogConfig::default() }
}

#[test]
fn a_level_that_is_none_is_an_error_and_not_a_panic() {
    for level in ["", "loud", "info,cache=", "cache=loud", "info,,warn"] {
        assert!(matches!(parse_level(level), Err(Error::Level { .. })), "{level}");
    }
    for level in ["off", "INFO", "warn,cache=debug,fred=off"] {
        assert!(parse_level(level).is_ok(), "{level}");
    }
}

#[test]
fn levels_apply_per_target() {
    let (memory, _guard) = log_to_memory(&LogConfig { level: "warn,noisy=debug".into(), ..LogConfig::default() });
    tracing::info!("dropped");
    tracing::warn!("kept one");
    tracing::debug!(target: "noisy", "kept two");
    tracing::trace!(target: "noisy", "dropped");
    let kept = memory.lines();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept[0].ends_with("kept one") && kept[1].ends_with("kept two"), "{kept:?}");
}

#[tokio::test]
async fn every_line_written_within_a_request_carries_its_ids() {
    let (memory, _guard) = log_to_memory(&json());
    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context = Arc::new(RequestContext::from_headers(Some("req-1"), Some(header)));
    in_request(context, async {
        tracing::info!("before");
        tokio::task::yield_now().await;
        tracing::info!("after");
    })
    .await;
    tracing::info!("outside");
    let records: Vec<serde_json::Value> =
        memory.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in &records[..2] {
        assert_eq!(record["request_id"], "req-1");
        assert_eq!(record["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    }
    assert!(records[2].get("request_id").is_none() && records[2].get("trace_id").is_none());
}

#[test]
fn spans_cost_nothing_because_they_are_switched_off() {
    let (_memory, _guard) = log_to_memory(&LogConfig { level: "trace".into(), ..LogConfig::default() });
    assert!(tracing::error_span!("a span").is_disabled());
}

#[test]
fn a_value_that_logs_while_it_is_formatted_does_no_harm() {
    struct Chatty;
    impl std::fmt::Debug for Chatty {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            // The dispatcher lets no event of an event through; the memory of the line must cope all the same.
            tracing::info!("inner");
            formatter.write_str("outer")
        }
    }
    let (memory, _guard) = log_to_memory(&LogConfig::default());
    tracing::info!(value = ?Chatty, "message");
    assert!(memory.lines().last().unwrap().ends_with("message value=outer"));
}
