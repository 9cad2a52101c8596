//! What lies over the view: a question, or the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Padding, Paragraph};

use super::super::app::Dialog;
use super::super::theme::Theme;

const HELP: &[(&str, &str)] = &[
    ("up, down (k, j)", "select a worker"),
    ("r", "reload: the next generation of all"),
    ("+, -", "one worker more, one less"),
    ("R (x)", "replace the selected worker"),
    ("l", "log of the selected worker, or of all"),
    ("q, Esc, Ctrl-C", "leave; what was begun goes on"),
];

/// Draws an open dialog in the middle.
pub(super) fn draw(frame: &mut Frame<'_>, open: Dialog, theme: Theme) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (title, lines) = match open {
        Dialog::Help => {
            ("keys; any of them closes this", HELP.iter().map(|(key, does)| help(key, does, bold)).collect())
        }
        Dialog::Confirm(change) => {
            let answers = [Span::styled("y", bold), " yes    ".into(), Span::styled("n", bold), " no".into()];
            (change.title(), vec![Line::raw(change.question()), Line::default(), Line::from_iter(answers)])
        }
    };
    let title = format!(" {title} ");
    let width = lines.iter().map(Line::width).chain([title.len()]).max().unwrap_or_default() as u16 + 4;
    let area = middle(frame.area(), width, lines.len() as u16 + 2);
    let block = Block::new()
        .borders(Borders::ALL)
        .border_set(theme.border())
        .padding(Padding::horizontal(1))
        .title(Span::styled(title, bold));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn help(key: &'static str, does: &'static str, bold: Style) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{key:<17}"), bold), Span::raw(does)])
}

fn middle(area: Rect, width: u16, height: u16) -> Rect {
    area.centered(Constraint::Length(width), Constraint::Length(height))
}
