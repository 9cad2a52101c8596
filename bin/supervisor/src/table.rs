//! The table of `supervisor status`: as much of it as the terminal is wide.

mod columns;
mod notes;

use comfy_table::{ContentLineStyle, LineStyle, Table, TableStyle};
use jiff::Timestamp;
use supervise::status::Status;

pub(crate) use self::columns::{Column, Layout};
pub(crate) use self::notes::{Note, ready_slots, reasons, surroundings};
use crate::figures::state_color;
use crate::output::Output;

const UNICODE: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('┌', '─', '┬', '┐'))
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .header_separator(LineStyle::new('├', '─', '┼', '┤'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .bottom_border(LineStyle::new('└', '─', '┴', '┘'));

const ASCII: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('+', '-', '+', '+'))
    .header_lines(ContentLineStyle::new('|', '|', '|'))
    .header_separator(LineStyle::new('+', '-', '+', '+'))
    .content_lines(ContentLineStyle::new('|', '|', '|'))
    .bottom_border(LineStyle::new('+', '-', '+', '+'));

/// The table and the lines under it, without a final newline.
pub(crate) fn render(status: &Status, output: &Output, now: Timestamp) -> String {
    let tables = Layout::ALL.map(|layout| (layout, table(status, layout, output, now)));
    let fits = |(_, table): &&(Layout, Table)| output.width.is_none_or(|width| width_of(table) <= width);
    let (layout, table) = tables.iter().find(fits).unwrap_or(&tables[tables.len() - 1]);
    let mut lines: Vec<_> = table.lines().collect();
    if output.color {
        color_states(&mut lines, status);
    }
    let reasons = reasons(status, |reason| !layout.shows(reason));
    for note in reasons.into_iter().chain(surroundings(status)) {
        lines.extend(
            note.lines(output.width.unwrap_or(usize::MAX)).into_iter().map(|line| painted(line, &note, output)),
        );
    }
    lines.join("\n")
}

fn table(status: &Status, layout: Layout, output: &Output, now: Timestamp) -> Table {
    let mut table = Table::new();
    table.load_style(if output.unicode { UNICODE } else { ASCII });
    table.set_header(layout.columns().map(|column| column.title(output.unicode)));
    for worker in &status.workers {
        table.add_row(layout.columns().map(|column| column.text(worker, now)));
    }
    for (column, shown) in layout.columns().zip(table.column_iter_mut()) {
        shown.set_cell_alignment(column.alignment);
    }
    table
}

fn width_of(table: &Table) -> usize {
    table.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

/// Above the rows are the border, the titles and their border. No cell left of the state holds letters.
fn color_states(lines: &mut [String], status: &Status) {
    for (line, worker) in lines.iter_mut().skip(3).zip(&status.workers) {
        let name = worker.state.name();
        *line = line.replacen(name, &state_color(worker.state).paint(name), 1);
    }
}

fn painted(line: String, note: &Note, output: &Output) -> String {
    match note.color {
        Some(color) if output.color => color.paint(&line),
        _ => line,
    }
}

#[cfg(test)]
mod tests;
