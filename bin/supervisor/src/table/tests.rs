//! The table as text, at the widths it is made for.

use super::*;
use crate::examples::{REASON, now, status};
use crate::output::Color;

fn rendered(width: Option<usize>, unicode: bool, color: bool) -> String {
    render(&status(), &Output::plain(width, unicode, color), now())
}

#[test]
fn the_table_shows_as_much_as_the_terminal_is_wide() {
    for width in [60, 100, 140, 180] {
        insta::assert_snapshot!(format!("at_{width}_columns"), rendered(Some(width), true, false));
    }
    assert_eq!(rendered(None, true, false), rendered(Some(250), true, false), "a pipe has room for everything");
}

#[test]
fn no_line_is_longer_than_the_terminal_is_wide() {
    for width in 60..200 {
        for line in rendered(Some(width), true, false).lines() {
            assert!(line.chars().count() <= width, "{} columns in a terminal of {width}: {line}", line.chars().count());
        }
    }
}

#[test]
fn a_broken_workers_reason_is_visible_at_every_width() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for reason in [REASON, "it exited with 78"] {
        let mut status = status();
        status.workers[3].reason = Some(reason.to_owned());
        for width in 60..250 {
            let text = render(&status, &Output::plain(Some(width), true, false), now());
            assert!(words(&text.replace('│', " ")).contains(&words(reason)), "at {width} columns:\n{text}");
        }
    }
}

#[test]
fn a_locale_without_utf8_gets_ascii_only() {
    let text = rendered(Some(60), false, false);
    insta::assert_snapshot!("in_ascii", text);
    assert!(text.is_ascii());
}

#[test]
fn colours_change_nothing_but_states_and_what_is_not_well() {
    let colored = rendered(Some(100), true, true);
    let painted = [
        (Color::Green, "ready"),
        (Color::Blue, "starting"),
        (Color::Red, "broken"),
        (Color::Yellow, "cache     reached by 1 of 2 workers, 10.0.0.5:6379"),
        (Color::Red, "database  reached by 0 of 2 workers, PostgreSQL at db.internal/bellwether"),
    ];
    for (color, text) in painted {
        assert!(colored.contains(&color.paint(text)), "{text} in\n{colored}");
    }
    assert!(colored.contains("\nredis     reached by 2 of 2 workers"), "what is well has no colour:\n{colored}");
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), rendered(Some(100), true, false));
}

#[test]
fn a_slot_with_two_workers_counts_once() {
    let mut status = status();
    status.workers[1].state = supervise::status::State::Ready;
    let text = render(&status, &Output::plain(None, true, false), now());
    assert!(text.contains("2 of 3 workers ready"), "{text}");
}
