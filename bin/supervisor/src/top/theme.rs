//! How the picture looks where colours or more than ASCII are not welcome.

use ratatui::style::{Color as Shown, Modifier, Style};
use ratatui::symbols::{bar, border};

use crate::output::Color;

/// What the terminal can show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theme {
    /// Whether colours are welcome.
    pub(crate) color: bool,
    /// Whether the locale can show more than ASCII.
    pub(crate) unicode: bool,
}

const ASCII_BORDER: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

const ASCII_BARS: bar::Set<'_> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "=",
    five_eighths: "=",
    half: "-",
    three_eighths: "-",
    one_quarter: ".",
    one_eighth: ".",
    empty: " ",
};

impl Theme {
    /// Bold and in this colour, as elsewhere.
    pub(super) fn style(self, color: Color) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.color { style.fg(shown(color)) } else { style }
    }

    /// Only in this colour.
    pub(super) fn tint(self, color: Color) -> Style {
        if self.color { Style::new().fg(shown(color)) } else { Style::new() }
    }

    pub(super) fn border(self) -> border::Set<'static> {
        if self.unicode { border::PLAIN } else { ASCII_BORDER }
    }

    /// What a rule begins with, before its title.
    pub(super) fn dash(self) -> &'static str {
        self.border().horizontal_top
    }

    /// `text` as far as the locale can show it.
    pub(super) fn shown(self, text: &str) -> String {
        if self.unicode {
            return text.to_owned();
        }
        text.chars().map(|character| if character.is_ascii() { character } else { '?' }).collect()
    }

    pub(super) fn bars(self) -> bar::Set<'static> {
        if self.unicode { bar::NINE_LEVELS } else { ASCII_BARS }
    }
}

fn shown(color: Color) -> Shown {
    match color {
        Color::Green => Shown::Green,
        Color::Blue => Shown::Blue,
        Color::Yellow => Shown::Yellow,
        Color::Red => Shown::Red,
    }
}
