//! The table of workers, with as many columns as fit, and the selected one marked.

use comfy_table::CellAlignment;
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table, TableState};
use supervise::status::WorkerStatus;

use super::super::app::App;
use super::super::theme::Theme;
use super::panel;
use crate::figures::state_color;
use crate::table::{Column, Layout, ready_slots};

/// Between two columns.
const SPACING: u16 = 2;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, theme: Theme, area: Rect) {
    let status = &app.picture.status;
    let width = |column: &Column| column.width(status, theme.unicode, app.picture.at) as u16;
    let needed = |layout: Layout| layout.columns().map(|column| width(column) + SPACING).sum::<u16>() - SPACING;
    let fitting = Layout::ALL.into_iter().find(|layout| needed(*layout) <= area.width).unwrap_or(Layout::Mini);

    let title = format!("workers, {} of {} ready", ready_slots(status), status.supervisor.workers_wanted);
    let titles = fitting.columns().map(|column| aligned(column, column.title(theme.unicode).to_owned()));
    let rows = status.workers.iter().map(|worker| row(worker, fitting, app, theme));
    let table = Table::new(rows, fitting.columns().map(|column| Constraint::Length(width(column))))
        .header(Row::new(titles).style(Style::new().add_modifier(Modifier::DIM)))
        .column_spacing(SPACING)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(panel(&title, theme));
    // Of a slot's rows the first is the one that counts.
    let selected = status.workers.iter().position(|worker| Some(worker.id) == app.selected);
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

fn row(worker: &WorkerStatus, layout: Layout, app: &App, theme: Theme) -> Row<'static> {
    Row::new(layout.columns().map(|column| {
        let cell = aligned(column, column.text(worker, app.picture.at));
        if column.is_state() { cell.style(theme.style(state_color(worker.state))) } else { cell }
    }))
}

fn aligned(column: &Column, text: String) -> Cell<'static> {
    let line = Line::raw(text);
    Cell::from(Text::from(match column.alignment {
        CellAlignment::Right => line.right_aligned(),
        _ => line,
    }))
}
