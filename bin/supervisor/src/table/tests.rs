//! The table as text, at the widths it is made for.

use supervise::status::{HostStatus, SCHEMA, SupervisorStatus};

use super::*;

fn worker(id: u32, state: State) -> WorkerStatus {
    WorkerStatus {
        id,
        pid: Some(41_277 + id as i32),
        generation: 1,
        state,
        restarts: 0,
        uptime_seconds: Some(11_000.0),
        cpu_percent: Some(61.4),
        rss_bytes: Some(39_950_000),
        connections: Some(64),
        requests_total: Some(1_000_000),
        requests_per_second: Some(9_812.0),
        p99_seconds: Some(0.0031),
        loop_lag_seconds: Some(0.0002),
        last_exit: None,
        reason: None,
    }
}

fn status() -> Status {
    let starting = WorkerStatus {
        uptime_seconds: Some(0.4),
        cpu_percent: None,
        rss_bytes: None,
        connections: None,
        requests_total: None,
        requests_per_second: None,
        p99_seconds: None,
        loop_lag_seconds: None,
        restarts: 12,
        last_exit: Some(LastExit { code: None, signal: Some(9), at: "2026-01-01T00:00:00Z".to_owned() }),
        ..worker(1, State::Starting)
    };
    let broken = WorkerStatus {
        pid: None,
        last_exit: Some(LastExit { code: Some(78), signal: None, at: "2026-01-01T00:00:00Z".to_owned() }),
        ..starting.clone()
    };
    Status {
        schema: SCHEMA.to_owned(),
        supervisor: SupervisorStatus {
            pid: 41_200,
            version: "0.1.0".to_owned(),
            uptime_seconds: 90_000.0,
            generation: 1,
            state: SupervisorState::Running,
            listen: vec!["127.0.0.1:8080".to_owned(), "unix:/run/bellwether/http.sock".to_owned()],
            workers_wanted: 3,
        },
        workers: vec![worker(0, State::Ready), starting, WorkerStatus { id: 2, state: State::Broken, ..broken }],
        processes: vec![ProcessStatus {
            name: "redis".to_owned(),
            pid: Some(41_201),
            state: State::Ready,
            restarts: 0,
            uptime_seconds: Some(90_000.0),
        }],
        host: HostStatus::default(),
        dependencies: Vec::new(),
    }
}

fn rendered(width: Option<usize>, unicode: bool, color: bool) -> String {
    let now: Timestamp = "2026-01-01T00:00:12Z".parse().unwrap();
    render(&status(), &Output::plain(width, unicode, color), now)
}

const FULL: &str = "
┌────┬───────┬─────┬──────────┬────┬────────┬─────┬────────┬───────┬───────┬───────┬───────┬─────────────────┐
│ id │   pid │ gen │ state    │  ↺ │ uptime │ cpu │    mem │ conns │ req/s │   p99 │   lag │ last exit       │
├────┼───────┼─────┼──────────┼────┼────────┼─────┼────────┼───────┼───────┼───────┼───────┼─────────────────┤
│  0 │ 41277 │   1 │ ready    │  0 │     3h │ 61% │ 38.1mb │    64 │  9.8k │ 3.1ms │ 0.2ms │ -               │
│  1 │ 41278 │   1 │ starting │ 12 │     0s │   - │      - │     - │     - │     - │     - │ SIGKILL 12s ago │
│  2 │     - │   1 │ broken   │ 12 │     0s │   - │      - │     - │     - │     - │     - │ exit 78 12s ago │
└────┴───────┴─────┴──────────┴────┴────────┴─────┴────────┴───────┴───────┴───────┴───────┴─────────────────┘
supervisor 0.1.0 running, pid 41200, up 1d, 1 of 3 workers ready, at 127.0.0.1:8080, unix:/run/bellwether/http.sock
redis ready, pid 41201, up 1d, 0 restarts";
const CONDENSED: &str = "
┌────┬───────┬──────────┬────┬────────┬─────┬────────┬───────┬───────┐
│ id │   pid │ state    │  ↺ │ uptime │ cpu │    mem │ req/s │   p99 │
├────┼───────┼──────────┼────┼────────┼─────┼────────┼───────┼───────┤
│  0 │ 41277 │ ready    │  0 │     3h │ 61% │ 38.1mb │  9.8k │ 3.1ms │
│  1 │ 41278 │ starting │ 12 │     0s │   - │      - │     - │     - │
│  2 │     - │ broken   │ 12 │     0s │   - │      - │     - │     - │
└────┴───────┴──────────┴────┴────────┴─────┴────────┴───────┴───────┘
supervisor 0.1.0 running, pid 41200, up 1d, 1 of 3 workers ready
at 127.0.0.1:8080, unix:/run/bellwether/http.sock
redis ready, pid 41201, up 1d, 0 restarts";
const MINI: &str = "
┌────┬──────────┬────┬─────┬────────┐
│ id │ state    │  ↺ │ cpu │    mem │
├────┼──────────┼────┼─────┼────────┤
│  0 │ ready    │  0 │ 61% │ 38.1mb │
│  1 │ starting │ 12 │   - │      - │
│  2 │ broken   │ 12 │   - │      - │
└────┴──────────┴────┴─────┴────────┘
supervisor 0.1.0 running, pid 41200, up 1d
1 of 3 workers ready
at 127.0.0.1:8080, unix:/run/bellwether/http.sock
redis ready, pid 41201, up 1d, 0 restarts";
const ASCII_MINI: &str = "
+----+----------+-----+-----+--------+
| id | state    | rst | cpu |    mem |
+----+----------+-----+-----+--------+
|  0 | ready    |   0 | 61% | 38.1mb |
|  1 | starting |  12 |   - |      - |
|  2 | broken   |  12 |   - |      - |
+----+----------+-----+-----+--------+
supervisor 0.1.0 running, pid 41200, up 1d
1 of 3 workers ready
at 127.0.0.1:8080, unix:/run/bellwether/http.sock
redis ready, pid 41201, up 1d, 0 restarts";

#[test]
fn the_table_shows_as_much_as_the_terminal_is_wide() {
    let cases = [(None, FULL), (Some(180), FULL), (Some(140), FULL), (Some(100), CONDENSED), (Some(60), MINI)];
    for (width, expected) in cases {
        let text = rendered(width, true, false);
        assert_eq!(text, expected.trim_start(), "at {width:?} columns:\n{text}");
    }
}

#[test]
fn no_line_is_longer_than_the_terminal_is_wide() {
    for width in [60, 80, 100, 140, 180] {
        for line in rendered(Some(width), true, false).lines() {
            assert!(line.chars().count() <= width, "{} columns in a terminal of {width}: {line}", line.chars().count());
        }
    }
}

#[test]
fn a_locale_without_utf8_gets_ascii_only() {
    let text = rendered(Some(60), false, false);
    assert_eq!(text, ASCII_MINI.trim_start(), "{text}");
    assert!(text.is_ascii());
}

#[test]
fn colours_change_nothing_but_the_states() {
    let colored = rendered(Some(100), true, true);
    for (color, state) in [(Color::Green, "ready"), (Color::Blue, "starting"), (Color::Red, "broken")] {
        assert!(colored.contains(&format!("│ {}", color.paint(state))), "{state} in\n{colored}");
    }
    let mut plain = colored;
    for code in ["\u{1b}[1;32m", "\u{1b}[1;34m", "\u{1b}[1;31m", "\u{1b}[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, rendered(Some(100), true, false));
}

#[test]
fn figures_are_short() {
    assert_eq!([0.4, 59.9, 60.0, 7_200.0, 200_000.0].map(duration), ["0s", "59s", "1m", "2h", "2d"]);
    assert_eq!([0, 39_950_000, 3 << 30].map(size), ["0.0mb", "38.1mb", "3.0gb"]);
    assert_eq!([0.4, 999.0, 9_812.0].map(rate), ["0", "999", "9.8k"]);
    assert_eq!([0.0031, 2.5].map(latency), ["3.1ms", "2.5s"]);
}
