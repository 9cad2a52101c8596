//! Tests of single lines.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::LogConfig;
use crate::log::tests::log_to_memory;

fn json(log: impl FnOnce()) -> Value {
    let config = LogConfig {
        format: Format::Json,
        fields: vec![("worker".into(), "0".into()), ("level".into(), "mine".into())],
        ..LogConfig::default()
    };
    let (memory, _guard) = log_to_memory(&config);
    log();
    let lines = memory.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(&lines[0]).unwrap_or_else(|error| panic!("{error}: {}", lines[0]))
}

fn pretty(log: impl FnOnce()) -> String {
    let (memory, _guard) = log_to_memory(&LogConfig::default());
    log();
    let lines = memory.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    // Without the time.
    lines[0].split_once(' ').unwrap().1.to_owned()
}

#[test]
fn a_json_record_has_typed_fields_beside_our_own() {
    let record = json(|| {
        tracing::warn!(
            target: "cache",
            count = 3_u64,
            change = -1_i64,
            share = 0.5,
            odd = f64::NAN,
            ok = true,
            client.address = "::1",
            level = "theirs",
            "evicted {} entries",
            3
        );
    });
    assert_eq!(record["level"], "warn");
    assert_eq!(record["target"], "cache");
    assert_eq!(record["message"], "evicted 3 entries");
    assert_eq!(record["worker"], "0");
    assert_eq!(record["count"], 3);
    assert_eq!(record["change"], -1);
    assert_eq!(record["share"], 0.5);
    assert_eq!(record["odd"], "NaN");
    assert_eq!(record["ok"], true);
    assert_eq!(record["client.address"], "::1");
    assert!(record["field.level"] == "theirs" || record["field.level"] == "mine");
    let time: jiff::Timestamp = record["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(time).as_secs() < 60);
}

#[test]
fn a_pretty_line_reads_like_a_sentence_with_fields() {
    let line =
        pretty(|| tracing::info!(target: "edge", client = "a b", empty = "", port = 80, path = "/x", "connected"));
    assert_eq!(line, r#" info edge: connected client="a b" empty="" port=80 path=/x"#);
}

#[test]
fn colours_are_there_only_when_asked_for() {
    let (memory, _guard) = log_to_memory(&LogConfig { color: true, ..LogConfig::default() });
    tracing::error!("red");
    assert!(memory.lines()[0].contains("\x1b[31merror\x1b[0m"));
    assert!(!pretty(|| tracing::error!("plain")).contains('\x1b'));
}

#[test]
fn what_a_terminal_would_act_on_is_escaped() {
    let nasty = "a\r\nb\x1b[31m\u{9b}\u{7f}\u{202e}\u{2028}c";
    let line = pretty(|| tracing::info!("{nasty}"));
    assert!(line.ends_with(r"a\r\nb\u{1b}[31m\u{9b}\u{7f}\u{202e}\u{2028}c"), "{line}");
    let record = json(|| tracing::info!(nasty, "message"));
    assert_eq!(record["nasty"], nasty);
}

#[test]
fn a_megabyte_is_cut_to_four_kilobytes() {
    let long = "ä".repeat(500_000);
    let line = pretty(|| tracing::info!(long, "message"));
    assert!(line.len() < 4_200 && line.ends_with('…'), "{} bytes", line.len());
    let record = json(|| tracing::info!(?long, "{long}"));
    for name in ["long", "message"] {
        let text = record[name].as_str().unwrap();
        assert!(text.len() <= 4_096 + '…'.len_utf8() && text.ends_with('…'), "{name}: {} bytes", text.len());
    }
}

proptest! {
    #[test]
    fn whatever_is_logged_is_one_line_of_valid_json_and_comes_back(text in any::<String>(), value in any::<String>()) {
        let record = json(|| tracing::info!(value, "{text}"));
        prop_assert_eq!(record["message"].as_str(), Some(text.as_str()));
        prop_assert_eq!(record["value"].as_str(), Some(value.as_str()));
    }

    #[test]
    fn no_pretty_line_contains_a_control_character(text in any::<String>(), value in any::<String>()) {
        let line = pretty(|| tracing::info!(value, debug = ?text, "{text}"));
        prop_assert!(!line.contains(is_dangerous), "{line:?}");
    }
}
