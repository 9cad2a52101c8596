//! The page as text.

use supervise::status::{DESCRIBE_SCHEMA, LastExit, State};

use super::*;
use crate::examples::{now, status, worker};

fn description() -> Description {
    let exit = |code, signal, at: &str| LastExit { code, signal, at: at.to_owned() };
    let metric = |name: &str, value| Metric { name: name.to_owned(), value };
    Description {
        schema: DESCRIBE_SCHEMA.to_owned(),
        worker: worker(1, State::Ready),
        command: ["worker", "serve", "--name", "it's one", ""].map(str::to_owned).to_vec(),
        executable: "/usr/local/bin/worker".to_owned(),
        user: Some("www-data".to_owned()),
        started_at: Some("2025-12-31T20:56:52Z".to_owned()),
        listen: vec!["127.0.0.1:8080".to_owned(), "unix:/run/bellwether/http.sock".to_owned()],
        exits: vec![exit(Some(1), None, "2025-12-31T20:00:00Z"), exit(None, Some(9), "2025-12-31T20:56:51Z")],
        metrics: vec![
            metric("bellwether_loop_lag_seconds", 0.0002),
            metric("http_requests_total{method=\"GET\",code=\"200\"}", 1_234.0),
            metric("http_requests_total{method=\"GET\",code=\"404\"}", 5.0),
            metric("http_server_request_duration_seconds_sum", 0.1 + 0.2),
        ],
    }
}

fn rendered(description: &Description, width: Option<usize>, color: bool) -> String {
    render(description, &Output::plain(width, true, color), now())
}

#[test]
fn the_page_tells_everything_about_a_worker() {
    insta::assert_snapshot!("page", rendered(&description(), Some(100), false));
}

#[test]
fn a_slot_without_a_worker_tells_why() {
    let empty = Description {
        worker: status().workers.pop().unwrap(),
        user: None,
        started_at: None,
        metrics: Vec::new(),
        ..description()
    };
    insta::assert_snapshot!("page_of_a_broken_slot", rendered(&empty, Some(60), false));
}

#[test]
fn a_worker_cannot_move_the_cursor_by_what_it_calls_its_metrics() {
    let name = "a{b=\"\u{1b}[2J\u{1b}]0;title\u{7}\r\"}".to_owned();
    let hostile = Description { metrics: vec![Metric { name, value: 1.0 }], ..description() };
    let page = rendered(&hostile, None, false);
    assert!(page.ends_with("metrics      a\n               b=\"\" 1"), "{page}");
}

#[test]
fn only_the_state_is_coloured() {
    let colored = rendered(&description(), None, true);
    assert!(colored.contains("state        \u{1b}[1;32mready\u{1b}[0m\n"), "{colored}");
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), rendered(&description(), None, false));
}
