//! Request rate and latency of the last minutes: of all workers, and below it of the selected one.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::{Paragraph, Sparkline};

use super::super::app::App;
use super::super::history::{Sample, Series, samples_shown};
use super::super::theme::Theme;
use super::panel;
use crate::figures::{duration, known, latency, rate};
use crate::output::Color;

/// Of what stands before a chart: whose it is, and the newest value.
const LABEL_WIDTH: u16 = 14;

/// A figure that is drawn.
struct Figure {
    title: &'static str,
    color: Color,
    of: fn(&Sample) -> Option<f64>,
    text: fn(f64) -> String,
}

const RATE: Figure =
    Figure { title: "requests/s", color: Color::Green, of: |sample| sample.requests_per_second, text: rate };

const LATENCY: Figure =
    Figure { title: "p99 of the slowest", color: Color::Yellow, of: |sample| sample.p99_seconds, text: latency };

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, theme: Theme, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(area);
    draw_figure(frame, app, theme, &RATE, left);
    draw_figure(frame, app, theme, &LATENCY, right);
}

fn draw_figure(frame: &mut Frame<'_>, app: &App, theme: Theme, figure: &Figure, area: Rect) {
    let chart_width = usize::from(area.width.saturating_sub(LABEL_WIDTH));
    let title = format!("{}, last {}", figure.title, duration(samples_shown(chart_width) as f64));
    let block = panel(&title, theme);
    let [total, selected] = Layout::vertical([Constraint::Fill(1); 2]).areas(block.inner(area));
    frame.render_widget(&block, area);
    draw_series(frame, &app.history.total, "all", theme, figure, total);
    if let Some((id, series)) = app.selected.and_then(|id| Some((id, app.history.of(id)?))) {
        draw_series(frame, series, &format!("w{id}"), theme, figure, selected);
    }
}

fn draw_series(frame: &mut Frame<'_>, series: &Series, name: &str, theme: Theme, figure: &Figure, area: Rect) {
    let [label, chart] = Layout::horizontal([Constraint::Length(LABEL_WIDTH), Constraint::Fill(1)]).areas(area);
    let newest = known((figure.of)(&series.newest()), figure.text);
    frame.render_widget(Paragraph::new(format!("{name:<5}{newest:>7}")), label);
    let values = series.columns(usize::from(chart.width), figure.of);
    let values = values.into_iter().map(|value| value.map(in_millionths));
    let sparkline = Sparkline::default().data(values).bar_set(theme.bars()).style(theme.tint(figure.color));
    frame.render_widget(sparkline, chart);
}

/// Charts are drawn of whole numbers; latencies are far below one.
fn in_millionths(value: f64) -> u64 {
    (value * 1e6) as u64
}
