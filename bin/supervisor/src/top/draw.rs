//! The picture: header, workers, charts, log, what became of the last change, and the keys.

mod charts;
mod dialog;
mod workers;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::app::{Activity, App};
use super::theme::Theme;
use crate::figures::folded;
use crate::output::Color;
use crate::table::{self, Note};

/// Below this, only a sentence is drawn.
const LEAST: (u16, u16) = (60, 15);

/// The keys, the most important first: what does not fit is left out.
const KEYS: &[(&str, &str)] = &[
    ("?", "help"),
    ("q", "quit"),
    ("r", "reload"),
    ("+/-", "scale"),
    ("R", "restart"),
    ("l", "its log"),
    ("up/down", "select"),
];

/// Draws `app` on the whole of `frame`.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, theme: Theme) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let sentence = format!("top needs {}x{}, this is {}x{}", LEAST.0, LEAST.1, area.width, area.height);
        frame.render_widget(Paragraph::new(sentence), area);
        return;
    }
    let header = header(app, theme, area);
    let activity = activity(app, theme, area);
    let [top, body, bottom, keys] = Layout::vertical([
        Constraint::Length(header.len() as u16),
        Constraint::Fill(1),
        Constraint::Length(activity.len() as u16),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(header), top);
    draw_body(frame, app, theme, body);
    frame.render_widget(Paragraph::new(activity), bottom);
    frame.render_widget(footer(keys.width), keys);
    if let Some(open) = app.dialog {
        dialog::draw(frame, open, theme);
    }
}

fn draw_body(frame: &mut Frame<'_>, app: &App, theme: Theme, area: Rect) {
    let rows = app.picture.status.workers.len() as u16;
    let charts = match area.height {
        ..20 => 3,
        20..32 => 5,
        _ => 7,
    };
    // A rule and the titles are above the rows; of the log one line is seen at least.
    let most = ((area.height - charts) / 2).max(4);
    let heights = [(rows + 2).clamp(3, most), charts].map(Constraint::Length);
    let [workers, charts, log] = Layout::vertical([heights[0], heights[1], Constraint::Fill(1)]).areas(area);
    workers::draw(frame, app, theme, workers);
    charts::draw(frame, app, theme, charts);
    draw_log(frame, app, theme, log);
    if app.lost.is_some() {
        frame.buffer_mut().set_style(area, Style::new().add_modifier(Modifier::DIM));
    }
}

/// A panel has a rule with its title above it, and no other border: terminals are never high enough.
fn panel(title: &str, theme: Theme) -> Block<'_> {
    let title = Span::styled(format!(" {title} "), Style::new().add_modifier(Modifier::BOLD));
    Block::new()
        .borders(Borders::TOP)
        .border_set(theme.border())
        .title(Line::from(vec![Span::raw(theme.dash()), title]))
}

/// The supervisor first, then what is not well, then everything else that is known; as much as fits a quarter of the screen.
fn header(app: &App, theme: Theme, area: Rect) -> Vec<Line<'static>> {
    let width = usize::from(area.width);
    let status = &app.picture.status;
    let mut supervisor = table::surroundings(status);
    let others = supervisor.split_off(1);
    let (alarming, usual): (Vec<_>, Vec<_>) =
        table::reasons(status, |_| true).into_iter().chain(others).partition(|note| note.color.is_some());

    let mut lines = lost(app, theme, width);
    let least = lines.len() + 1;
    lines.extend(noted(&supervisor, theme, width));
    let others = noted(alarming.iter().chain(&usual), theme, width);
    let most = usize::from(area.height / 4).max(3);
    if lines.len() + others.len() > most {
        // The addresses can be looked up with `status`; what is not well has to be seen here.
        lines.truncate(least.max(most.saturating_sub(others.len())));
    }
    lines.extend(others);
    lines.truncate(most);
    if app.lost.is_some() {
        let old = lines.iter_mut().skip(least - 1);
        old.for_each(|line| *line = line.clone().patch_style(Modifier::DIM));
    }
    lines
}

fn lost(app: &App, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let sentence = app.lost.as_ref().map(|why| format!("{why}; trying again every second"));
    let lines = sentence.iter().flat_map(|sentence| folded(sentence, width, 2));
    lines.map(|line| Line::styled(line, theme.style(Color::Red))).collect()
}

fn noted<'a>(notes: impl IntoIterator<Item = &'a Note>, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for note in notes {
        let style = note.color.map_or_else(Style::new, |color| theme.style(color));
        lines.extend(note.lines(width).into_iter().map(|line| Line::styled(line, style)));
    }
    lines
}

fn draw_log(frame: &mut Frame<'_>, app: &App, theme: Theme, area: Rect) {
    let of = app.logs_of();
    let title = of.map_or_else(|| "log".to_owned(), |id| format!("log of w{id}"));
    let mut block = panel(&title, theme);
    if let Some(trouble) = &app.logs.trouble {
        block = block.title(Line::styled(format!(" {trouble} "), theme.style(Color::Yellow)));
    }
    let lines = app.logs.last(usize::from(block.inner(area).height), of);
    let lines: Vec<_> = lines.into_iter().map(|line| Line::raw(theme.shown(line))).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// At least one line, so that nothing jumps when something happens.
fn activity(app: &App, theme: Theme, area: Rect) -> Vec<Line<'static>> {
    let (text, color) = match &app.activity {
        Activity::Nothing => (String::new(), None),
        Activity::Running { change, said } => (format!("{}: {said}", change.name()), Some(Color::Blue)),
        Activity::Done(change) => (format!("{}: done", change.name()), Some(Color::Green)),
        Activity::Failed { change, why } => (format!("{} failed: {why}", change.name()), Some(Color::Red)),
        Activity::Refused(why) => (why.clone(), Some(Color::Yellow)),
    };
    let style = color.map_or_else(Style::new, |color| theme.style(color));
    let text = theme.shown(&text);
    let lines = text.lines().flat_map(|line| folded(line, usize::from(area.width), 2));
    let mut lines: Vec<_> = lines.map(|line| Line::styled(line, style)).collect();
    lines.truncate(usize::from(area.height / 6).max(1));
    if lines.is_empty() {
        lines.push(Line::default());
    }
    lines
}

fn footer(width: u16) -> Line<'static> {
    let mut line = Line::default();
    for (key, does) in KEYS {
        let gap = if line.spans.is_empty() { "" } else { "  " };
        if line.width() + gap.len() + key.len() + 1 + does.len() <= usize::from(width) {
            line.push_span(gap);
            line.push_span(Span::styled(*key, Style::new().add_modifier(Modifier::BOLD)));
            line.push_span(format!(" {does}"));
        }
    }
    line
}

#[cfg(test)]
mod tests;
