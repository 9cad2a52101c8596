//! The state of the view, and what an event does to it. Knows no clock, no terminal and no supervisor.

use std::collections::BTreeSet;

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use supervise::status::Status;

use super::change::Change;
use super::history::History;
use super::log_lines::LogLines;

/// Whatever can happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size; the next picture fits it.
    Resized,
    /// The supervisor has answered.
    Seen(Box<Picture>),
    /// The supervisor cannot be asked, and why.
    Lost(String),
    /// The log is read from now on, with its last lines first.
    LogsBegun,
    /// The log cannot be read, and why.
    LogsEnded(String),
    /// A line of the log.
    Logged(String),
    /// The change that is under way tells what happens.
    Progressed(String),
    /// The change that was under way has happened, or the reason why it has not.
    Finished(Result<(), String>),
    /// Somebody wants this program to end.
    Ended,
}

/// What the outside has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Quit,
    /// Its progress and its end become events.
    Perform(Change),
}

/// What the supervisor said, and when.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) status: Status,
    pub(crate) at: Timestamp,
}

/// What lies over the view and takes the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialog {
    Help,
    Confirm(Change),
}

/// What became of the last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Activity {
    Nothing,
    Running {
        change: Change,
        said: String,
    },
    Done(Change),
    Failed {
        change: Change,
        why: String,
    },
    /// A key that cannot do anything at the moment, and why.
    Refused(String),
}

/// Everything that is shown.
#[derive(Debug)]
pub(crate) struct App {
    /// The last there was.
    pub(crate) picture: Picture,
    /// Why the picture is old.
    pub(crate) lost: Option<String>,
    /// The slot whose worker keys act on; `None` without any.
    pub(crate) selected: Option<u32>,
    pub(crate) history: History,
    pub(crate) logs: LogLines,
    /// Whether only the selected worker's lines are shown.
    pub(crate) logs_of_selected: bool,
    pub(crate) dialog: Option<Dialog>,
    pub(crate) activity: Activity,
}

impl App {
    pub(crate) fn new(picture: Picture) -> Self {
        let mut app = Self {
            picture: picture.clone(),
            lost: None,
            selected: None,
            history: History::default(),
            logs: LogLines::default(),
            logs_of_selected: false,
            dialog: None,
            activity: Activity::Nothing,
        };
        app.see(picture);
        app
    }

    pub(crate) fn on(&mut self, event: Event) -> Option<Effect> {
        match event {
            Event::Key(key) => return self.on_key(key),
            Event::Ended => return Some(Effect::Quit),
            Event::Resized => {}
            Event::Seen(picture) => self.see(*picture),
            Event::Lost(why) => {
                self.history.add_gap();
                self.lost = Some(why);
            }
            Event::LogsBegun => self.logs.begin(),
            Event::LogsEnded(why) => self.logs.trouble = Some(why),
            Event::Logged(line) => self.logs.push(&line),
            Event::Progressed(sentence) => {
                if let Activity::Running { said, .. } = &mut self.activity {
                    *said = sentence;
                }
            }
            Event::Finished(result) => self.finish(result),
        }
        None
    }

    /// The selected worker, if only its log lines are to be shown.
    pub(crate) fn logs_of(&self) -> Option<u32> {
        self.selected.filter(|_| self.logs_of_selected)
    }

    fn see(&mut self, picture: Picture) {
        self.history.add(&picture.status);
        self.picture = picture;
        self.lost = None;
        let ids = self.ids();
        // Of a worker that is gone, its nearest neighbour takes the place.
        let nearest = |id: u32| ids.iter().copied().min_by_key(|candidate| candidate.abs_diff(id));
        self.selected = self.selected.map_or_else(|| ids.first().copied(), nearest);
    }

    fn ids(&self) -> BTreeSet<u32> {
        self.picture.status.workers.iter().map(|worker| worker.id).collect()
    }

    fn finish(&mut self, result: Result<(), String>) {
        if let Activity::Running { change, .. } = self.activity {
            self.activity = match result {
                Ok(()) => Activity::Done(change),
                Err(why) => Activity::Failed { change, why },
            };
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Option<Effect> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Some(Effect::Quit);
        }
        match self.dialog {
            Some(Dialog::Help) => self.dialog = None,
            Some(Dialog::Confirm(change)) => return self.on_answer(key.code, change),
            None => return self.on_plain_key(key.code),
        }
        None
    }

    fn on_answer(&mut self, key: KeyCode, change: Change) -> Option<Effect> {
        match key {
            KeyCode::Char('y' | 'Y') => {
                self.dialog = None;
                self.activity = Activity::Running { change, said: "asked for".to_owned() };
                Some(Effect::Perform(change))
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.dialog = None;
                None
            }
            _ => None,
        }
    }

    fn on_plain_key(&mut self, key: KeyCode) -> Option<Effect> {
        let wanted = self.picture.status.supervisor.workers_wanted;
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Effect::Quit),
            KeyCode::Char('?') => self.dialog = Some(Dialog::Help),
            KeyCode::Up | KeyCode::Char('k') => self.select_before(),
            KeyCode::Down | KeyCode::Char('j') => self.select_after(),
            KeyCode::Char('l') => self.logs_of_selected = !self.logs_of_selected,
            KeyCode::Char('r') => self.propose(Change::Reload),
            KeyCode::Char('+') => self.propose(Change::Scale { from: wanted, to: wanted.saturating_add(1) }),
            KeyCode::Char('-') if wanted <= 1 => self.refuse("there is always one worker at least"),
            KeyCode::Char('-') => self.propose(Change::Scale { from: wanted, to: wanted - 1 }),
            KeyCode::Char('R' | 'x') => match self.selected {
                Some(id) => self.propose(Change::Restart(id)),
                None => self.refuse("there is no worker to restart"),
            },
            _ => {}
        }
        None
    }

    fn select_before(&mut self) {
        let selected = self.selected.unwrap_or_default();
        self.selected = self.ids().range(..selected).next_back().copied().or(self.selected);
    }

    fn select_after(&mut self) {
        let selected = self.selected.unwrap_or_default();
        self.selected = self.ids().range(selected..).find(|id| **id != selected).copied().or(self.selected);
    }

    /// One change at a time, so that what is told belongs to it.
    fn propose(&mut self, change: Change) {
        match &mut self.activity {
            Activity::Running { said, .. } => "not finished yet; one change at a time".clone_into(said),
            _ => self.dialog = Some(Dialog::Confirm(change)),
        }
    }

    fn refuse(&mut self, why: &str) {
        if !matches!(self.activity, Activity::Running { .. }) {
            self.activity = Activity::Refused(why.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
