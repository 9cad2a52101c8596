//! `supervisor top`: what runs, how fast and what it says, live, with keys that act.
//!
//! [`app`] is the state and decides what an event does to it; [`draw`] makes a picture of it. Neither knows the terminal, the clock
//! or the supervisor: those are here and in [`sources`].

mod app;
mod change;
mod draw;
mod history;
mod log_lines;
mod sources;
mod theme;

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::{io, iter};

use jiff::Timestamp;
use ratatui::DefaultTerminal;
use supervise::status::Status;

use self::app::{App, Effect, Event, Picture};
use self::sources::Sources;
pub(crate) use self::theme::Theme;
use crate::exit::{Exit, Failure};

/// Events that are taken before the next picture, so that a flood of log lines cannot keep it from being drawn.
const EVENTS_PER_PICTURE: usize = 1_000;

/// Shows the supervisor behind `socket`, at first as `status` says, until somebody wants to leave.
pub(crate) fn run(socket: &Path, status: Status, theme: Theme) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, format_args!("cannot use the terminal: {error}"));
    // Declared first, so that it is dropped last, and even when the terminal was changed only in part.
    let restored = Restored;
    let mut terminal = ratatui::try_init().map_err(failed)?;
    // Whether colours are welcome has been decided already.
    ratatui::crossterm::style::force_color_output(theme.color);
    let (sources, events) = Sources::start(socket.to_owned()).map_err(failed)?;
    let app = App::new(Picture { status, at: Timestamp::now() });
    let outcome = turn(&mut terminal, app, theme, &sources, &events);
    drop(terminal);
    drop(restored);
    outcome.map_err(failed)?;
    Ok(Exit::Done)
}

fn turn(
    terminal: &mut DefaultTerminal,
    mut app: App,
    theme: Theme,
    sources: &Sources,
    events: &Receiver<Event>,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| draw::draw(frame, &app, theme))?;
        let first = events.recv().map_err(io::Error::other)?;
        for event in iter::once(first).chain(events.try_iter().take(EVENTS_PER_PICTURE)) {
            match app.on(event) {
                Some(Effect::Quit) => return Ok(()),
                Some(Effect::Perform(change)) => sources.perform(change)?,
                None => {}
            }
        }
    }
}

/// Gives the terminal back when it goes, however that comes about.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        // After a panic the hook of `ratatui::try_init` has done it, before the message was printed.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}
