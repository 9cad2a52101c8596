//! What keys and news do to the state.

use supervise::status::State;

use super::*;
use crate::examples::{now, status, worker};

fn app() -> App {
    App::new(picture(&[0, 1, 2]))
}

fn picture(ids: &[u32]) -> Picture {
    let mut status = status();
    status.workers = ids.iter().map(|id| worker(*id, State::Ready)).collect();
    status.supervisor.workers_wanted = ids.len() as u32;
    Picture { status, at: now() }
}

fn seen(ids: &[u32]) -> Event {
    Event::Seen(Box::new(picture(ids)))
}

fn press(app: &mut App, key: impl Into<Pressed>) -> Option<Effect> {
    let Pressed(code) = key.into();
    app.on(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

struct Pressed(KeyCode);

impl From<char> for Pressed {
    fn from(character: char) -> Self {
        Self(KeyCode::Char(character))
    }
}

impl From<KeyCode> for Pressed {
    fn from(code: KeyCode) -> Self {
        Self(code)
    }
}

#[test]
fn every_change_needs_a_yes() {
    let cases = [
        ('r', Change::Reload),
        ('+', Change::Scale { from: 3, to: 4 }),
        ('-', Change::Scale { from: 3, to: 2 }),
        ('R', Change::Restart(0)),
        ('x', Change::Restart(0)),
    ];
    for (key, change) in cases {
        for answer in [KeyCode::Char('n'), KeyCode::Esc, KeyCode::Char('q')] {
            let mut app = app();
            assert_eq!(press(&mut app, key), None);
            assert_eq!(app.dialog, Some(Dialog::Confirm(change)));
            assert_eq!(press(&mut app, answer), None, "{key}, then {answer:?}");
            assert_eq!((app.dialog, &app.activity), (None, &Activity::Nothing), "{key}, then {answer:?}");
        }
        let mut app = app();
        press(&mut app, key);
        for other in [KeyCode::Enter, KeyCode::Char(' '), KeyCode::Char(key)] {
            assert_eq!(press(&mut app, other), None, "{other:?} is no yes");
        }
        assert_eq!(press(&mut app, 'y'), Some(Effect::Perform(change)));
        assert!(matches!(app.activity, Activity::Running { .. }));
    }
}

#[test]
fn a_change_tells_its_progress_and_how_it_ended() {
    for (result, expected) in [
        (Ok(()), Activity::Done(Change::Reload)),
        (
            Err("w0 exited with 1".to_owned()),
            Activity::Failed { change: Change::Reload, why: "w0 exited with 1".to_owned() },
        ),
    ] {
        let mut app = app();
        press(&mut app, 'r');
        press(&mut app, 'y');
        app.on(Event::Progressed("w0 is ready".to_owned()));
        assert_eq!(app.activity, Activity::Running { change: Change::Reload, said: "w0 is ready".to_owned() });
        app.on(Event::Finished(result));
        assert_eq!(app.activity, expected);
    }
}

#[test]
fn there_is_one_change_at_a_time() {
    let mut app = app();
    press(&mut app, 'r');
    press(&mut app, 'y');
    press(&mut app, '+');
    assert_eq!(app.dialog, None);
    let Activity::Running { change, said } = &app.activity else { panic!("{:?}", app.activity) };
    assert_eq!((*change, said.contains("one change at a time")), (Change::Reload, true));
}

#[test]
fn the_last_worker_cannot_be_taken_away() {
    let mut app = App::new(picture(&[0]));
    press(&mut app, '-');
    assert_eq!(app.dialog, None);
    assert_eq!(app.activity, Activity::Refused("there is always one worker at least".to_owned()));
}

#[test]
fn the_selection_moves_over_slots_and_stops_at_the_ends() {
    let mut app = App::new(picture(&[0, 0, 1, 2]));
    let mut visited = vec![app.selected];
    for key in [KeyCode::Down, KeyCode::Down, KeyCode::Down, KeyCode::Up, KeyCode::Up, KeyCode::Up] {
        press(&mut app, key);
        visited.push(app.selected);
    }
    assert_eq!(visited, [0, 1, 2, 2, 1, 0, 0].map(Some));
}

#[test]
fn the_selection_stays_on_its_slot_when_rows_come_and_go() {
    let mut app = App::new(picture(&[0, 1, 2, 3]));
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Down);
    for (ids, expected) in [
        (&[0, 0, 1, 1, 2, 3][..], Some(2)),
        (&[1, 2], Some(2)),
        (&[0, 1], Some(1)),
        (&[0, 1, 2, 3], Some(1)),
        (&[], None),
        (&[4, 5], Some(4)),
    ] {
        app.on(seen(ids));
        assert_eq!(app.selected, expected, "with {ids:?}");
    }
}

#[test]
fn the_last_picture_stays_while_the_supervisor_is_away() {
    let mut app = app();
    app.on(Event::Lost("no supervisor is running".to_owned()));
    assert_eq!(app.lost.as_deref(), Some("no supervisor is running"));
    assert_eq!(app.picture.status.workers.len(), 3);
    assert_eq!(app.history.total.newest().requests_per_second, None, "nothing is known of this second");
    app.on(seen(&[0, 1]));
    assert_eq!((app.lost, app.picture.status.workers.len()), (None, 2));
}

#[test]
fn rates_add_up_and_latencies_do_not() {
    let app = App::new(picture(&[0, 1, 1]));
    let (total, one) = (app.history.total.newest(), app.history.of(1).unwrap().newest());
    assert_eq!((total.requests_per_second, total.p99_seconds), (Some(3.0 * 9_812.0), Some(0.0031)));
    assert_eq!((one.requests_per_second, one.p99_seconds), (Some(2.0 * 9_812.0), Some(0.0031)));
}

#[test]
fn the_history_of_a_slot_that_is_gone_is_forgotten() {
    let mut app = app();
    app.on(seen(&[0]));
    assert!(app.history.of(0).is_some() && app.history.of(1).is_none());
}

#[test]
fn the_log_can_be_that_of_the_selected_worker() {
    let mut app = app();
    press(&mut app, KeyCode::Down);
    assert_eq!(app.logs_of(), None);
    press(&mut app, 'l');
    assert_eq!(app.logs_of(), Some(1));
    press(&mut app, KeyCode::Down);
    assert_eq!(app.logs_of(), Some(2));
    press(&mut app, 'l');
    assert_eq!(app.logs_of(), None);
}

#[test]
fn a_log_that_begins_anew_shows_no_line_twice() {
    let mut app = app();
    for event in [
        Event::LogsBegun,
        Event::Logged("w0| one".to_owned()),
        Event::LogsEnded("gone".to_owned()),
        Event::LogsBegun,
        Event::Logged("w0| one".to_owned()),
    ] {
        app.on(event);
    }
    assert_eq!((app.logs.last(9, None), &app.logs.trouble), (vec!["w0| one"], &None));
}

#[test]
fn q_escape_control_c_and_signals_quit() {
    assert_eq!(press(&mut app(), 'q'), Some(Effect::Quit));
    assert_eq!(press(&mut app(), KeyCode::Esc), Some(Effect::Quit));
    assert_eq!(app().on(Event::Ended), Some(Effect::Quit));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    let mut asked = app();
    press(&mut asked, 'r');
    assert_eq!(asked.on(Event::Key(control_c)), Some(Effect::Quit), "even while a question is open");
}

#[test]
fn any_key_closes_the_help() {
    let mut app = app();
    press(&mut app, '?');
    assert_eq!(app.dialog, Some(Dialog::Help));
    assert_eq!(press(&mut app, 'q'), None);
    assert_eq!(app.dialog, None);
}
