//! Where words go: results to stdout, talk to stderr, colour only where it is welcome.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::arguments::{ColorChoice, Global};

/// How to speak to whoever started the command.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Whether results may hold colours.
    pub(crate) color: bool,
    /// Whether the locale can show more than ASCII.
    pub(crate) unicode: bool,
    /// The terminal's columns; `None` when results do not go to one.
    pub(crate) width: Option<usize>,
    is_quiet: bool,
    color_errors: bool,
}

/// The few colours that are used, as SGR codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Color {
    Green,
    Blue,
    Yellow,
    Red,
}

impl Output {
    /// What the arguments and the environment ask for.
    pub(crate) fn of_this_process(global: &Global) -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let colors = |is_terminal| is_colored(global.color, is_terminal, &variable);
        let (stdout, stderr) = (io::stdout(), io::stderr());
        Self {
            color: colors(stdout.is_terminal()),
            unicode: is_unicode(&variable),
            width: width(&stdout, &variable("COLUMNS")),
            is_quiet: global.quiet,
            color_errors: colors(stderr.is_terminal()),
        }
    }

    #[cfg(test)]
    pub(crate) fn plain(width: Option<usize>, unicode: bool, color: bool) -> Self {
        Self { color, unicode, width, is_quiet: false, color_errors: false }
    }

    /// What the command was asked for. A reader who has left is no error.
    pub(crate) fn result(&self, text: impl Display) {
        let _ = writeln!(io::stdout().lock(), "{text}");
    }

    /// What is good to know meanwhile; `--quiet` leaves it out.
    pub(crate) fn talk(&self, text: impl Display) {
        if !self.is_quiet {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// What should not be overlooked.
    pub(crate) fn warn(&self, text: impl Display) {
        self.labelled("warning:", Color::Yellow, text);
    }

    /// What went wrong.
    pub(crate) fn error(&self, text: impl Display) {
        self.labelled("error:", Color::Red, text);
    }

    fn labelled(&self, label: &str, color: Color, text: impl Display) {
        let label = if self.color_errors { color.paint(label) } else { label.to_owned() };
        let _ = writeln!(io::stderr().lock(), "{label} {text}");
    }
}

impl Color {
    /// `text` in this colour and bold.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Green => 32,
            Self::Blue => 34,
            Self::Yellow => 33,
            Self::Red => 31,
        };
        format!("\u{1b}[1;{code}m{text}\u{1b}[0m")
    }
}

/// An explicit choice wins, then `NO_COLOR`, then `CLICOLOR_FORCE`, then what the stream is.
fn is_colored(choice: ColorChoice, is_terminal: bool, variable: &dyn Fn(&str) -> String) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if !variable("NO_COLOR").is_empty() => false,
        ColorChoice::Auto if !matches!(variable("CLICOLOR_FORCE").as_str(), "" | "0") => true,
        ColorChoice::Auto => is_terminal && variable("TERM") != "dumb",
    }
}

/// POSIX: the first of these that is set decides.
fn is_unicode(variable: &dyn Fn(&str) -> String) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable).into_iter().find(|value| !value.is_empty());
    let locale = locale.unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

fn width(stdout: &io::Stdout, columns: &str) -> Option<usize> {
    if let Ok(columns) = columns.parse() {
        return Some(columns);
    }
    terminal_size::terminal_size_of(stdout).map(|(width, _)| usize::from(width.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn environment<'a>(variables: Variables<'a>) -> impl Fn(&str) -> String + 'a {
        |name| {
            let found = variables.iter().find(|(candidate, _)| *candidate == name);
            found.map_or_else(String::new, |(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn colours_appear_only_where_they_are_welcome() {
        use ColorChoice::{Always, Auto, Never};
        let cases: [(ColorChoice, bool, Variables<'_>, bool); 8] = [
            (Auto, true, &[], true),
            (Auto, false, &[], false),
            (Auto, true, &[("NO_COLOR", "1")], false),
            (Auto, true, &[("TERM", "dumb")], false),
            (Auto, false, &[("CLICOLOR_FORCE", "1")], true),
            (Auto, false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (Always, false, &[("NO_COLOR", "1")], true),
            (Never, true, &[("CLICOLOR_FORCE", "1")], false),
        ];
        for (choice, is_terminal, variables, expected) in cases {
            let colored = is_colored(choice, is_terminal, &environment(variables));
            assert_eq!(colored, expected, "{choice:?} {is_terminal} {variables:?}");
        }
    }

    #[test]
    fn only_a_utf8_locale_gets_more_than_ascii() {
        let cases: [(Variables<'_>, bool); 5] = [
            (&[("LANG", "en_US.UTF-8")], true),
            (&[("LANG", "C.utf8")], true),
            (&[("LANG", "C")], false),
            (&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")], false),
            (&[], false),
        ];
        for (variables, expected) in cases {
            assert_eq!(is_unicode(&environment(variables)), expected, "{variables:?}");
        }
    }
}
