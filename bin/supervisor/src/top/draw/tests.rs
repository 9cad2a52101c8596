//! Whole pictures, on a terminal made of memory.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color as Shown;

use super::super::app::{Event, Picture};
use super::*;
use crate::examples::{now, status};

const PLAIN: Theme = Theme { color: false, unicode: true };
const COLORED: Theme = Theme { color: true, unicode: true };

/// After three minutes of growing load, with some lines in the log.
fn app() -> App {
    let mut app = App::new(picture(0));
    for second in 1..180 {
        app.on(Event::Seen(Box::new(picture(second))));
    }
    app.on(Event::LogsBegun);
    for number in 1..=40 {
        app.on(Event::Logged(format!("w{}| INFO GET /api/v1/products 200, request {number}", number % 3)));
    }
    app
}

fn picture(second: u32) -> Picture {
    let mut status = status();
    for worker in &mut status.workers {
        worker.requests_per_second = worker.requests_per_second.map(|_| f64::from(second * 50));
        worker.p99_seconds = worker.p99_seconds.map(|_| f64::from(second % 60) / 1_000.0);
    }
    Picture { status, at: now() }
}

fn press(app: &mut App, key: char) {
    app.on(Event::Key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE)));
}

fn drawn(app: &App, theme: Theme, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, theme)).unwrap();
    terminal
}

fn text(app: &App, theme: Theme, width: u16, height: u16) -> String {
    drawn(app, theme, width, height).backend().to_string()
}

/// The style of the first cell of `part`.
fn style_of(terminal: &Terminal<TestBackend>, part: &str) -> Style {
    let buffer = terminal.backend().buffer();
    let width = usize::from(buffer.area.width);
    for (row, cells) in buffer.content.chunks(width).enumerate() {
        let line: Vec<_> = cells.iter().map(|cell| cell.symbol()).collect();
        if let Some(column) = (0..width).find(|column| line[*column..].concat().starts_with(part)) {
            return buffer[(column as u16, row as u16)].style();
        }
    }
    panic!("{part} is not in\n{}", terminal.backend());
}

#[test]
fn the_picture_uses_the_terminal_it_has() {
    for (width, height) in [(60, 15), (100, 24), (180, 45)] {
        insta::assert_snapshot!(format!("{width}x{height}"), text(&app(), PLAIN, width, height));
    }
}

#[test]
fn a_question_lies_over_the_picture() {
    let mut app = app();
    press(&mut app, '+');
    insta::assert_snapshot!("question", text(&app, PLAIN, 60, 15));
}

#[test]
fn the_help_names_every_key_and_fits_the_smallest_terminal() {
    let mut app = app();
    press(&mut app, '?');
    insta::assert_snapshot!("help", text(&app, PLAIN, 60, 15));
}

#[test]
fn a_locale_without_utf8_gets_ascii_only() {
    let mut app = app();
    app.on(Event::Logged("w0| caf\u{e9}".to_owned()));
    press(&mut app, 'r');
    let text = text(&app, Theme { color: false, unicode: false }, 100, 24);
    insta::assert_snapshot!("in_ascii", text);
    assert!(text.is_ascii());
}

#[test]
fn no_size_is_too_small_to_draw() {
    let mut app = app();
    press(&mut app, '?');
    for width in [1, 2, 59, 60, 61, 80, 400] {
        for height in [1, 2, 14, 15, 16, 20, 35, 100] {
            drawn(&app, PLAIN, width, height);
        }
    }
    assert!(text(&app, PLAIN, 59, 15).contains("top needs 60x15, this is 59x15"));
}

#[test]
fn a_failed_change_is_shown_in_red_and_in_full() {
    let mut app = app();
    press(&mut app, 'r');
    press(&mut app, 'y');
    app.on(Event::Finished(Err("w0 was not ready in time\nits last words: no such table".to_owned())));
    let terminal = drawn(&app, COLORED, 100, 24);
    assert_eq!(style_of(&terminal, "reload failed: w0 was not ready in time").fg, Some(Shown::Red));
    assert_eq!(style_of(&terminal, "its last words: no such table").fg, Some(Shown::Red));
}

#[test]
fn states_are_coloured_and_the_selected_row_is_marked() {
    let terminal = drawn(&app(), COLORED, 100, 24);
    assert_eq!(style_of(&terminal, "starting").fg, Some(Shown::Blue));
    assert_eq!(style_of(&terminal, "broken ").fg, Some(Shown::Red));
    assert!(style_of(&terminal, "41277").add_modifier.contains(Modifier::REVERSED));
    assert!(!style_of(&terminal, "41278").add_modifier.contains(Modifier::REVERSED));
}

#[test]
fn without_colours_no_cell_has_one() {
    let mut app = app();
    app.on(Event::Lost("gone".to_owned()));
    press(&mut app, 'r');
    let terminal = drawn(&app, PLAIN, 100, 24);
    for cell in &terminal.backend().buffer().content {
        assert_eq!((cell.fg, cell.bg), (Shown::Reset, Shown::Reset), "{cell:?}");
    }
}

#[test]
fn while_the_supervisor_is_away_the_last_picture_is_dimmed_and_the_reason_is_told() {
    let mut app = app();
    app.on(Event::Lost("no supervisor is running at /run/s.sock".to_owned()));
    let terminal = drawn(&app, COLORED, 100, 24);
    let reason = style_of(&terminal, "no supervisor is running at /run/s.sock; trying again every second");
    assert_eq!(reason.fg, Some(Shown::Red));
    assert!(!reason.add_modifier.contains(Modifier::DIM));
    for old in ["supervisor 0.1.0", "41277", "w1| INFO"] {
        assert!(style_of(&terminal, old).add_modifier.contains(Modifier::DIM), "{old}");
    }
    assert!(!style_of(&terminal, "? help").add_modifier.contains(Modifier::DIM), "the keys still work");
}

#[test]
fn what_is_not_well_is_seen_on_the_smallest_terminal() {
    let mut app = app();
    let well = text(&app, PLAIN, 60, 15);
    assert!(well.contains("w2 is broken: it exited with 78"), "{well}");
    app.on(Event::Lost("no supervisor is running at /run/bellwether/supervisor.sock".to_owned()));
    let lost = text(&app, PLAIN, 60, 15);
    assert!(lost.contains("trying again every second") && lost.contains("supervisor 0.1.0"), "{lost}");
}

#[test]
fn a_selected_worker_is_visible_among_many() {
    let mut app = app();
    let mut many = status();
    many.workers = (0..64).map(|id| crate::examples::worker(id, supervise::status::State::Ready)).collect();
    app.on(Event::Seen(Box::new(Picture { status: many, at: now() })));
    for _ in 0..50 {
        press(&mut app, 'j');
    }
    let terminal = drawn(&app, PLAIN, 100, 24);
    assert!(style_of(&terminal, &(41_277 + 50).to_string()).add_modifier.contains(Modifier::REVERSED));
}
