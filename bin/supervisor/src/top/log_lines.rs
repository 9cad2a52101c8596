//! The last lines of the log, ready to be shown.

use std::collections::VecDeque;

use crate::figures::harmless;

/// More lines than any terminal shows at once.
const MOST_LINES: usize = 1_000;

/// What was logged, the newest last.
#[derive(Debug, Default)]
pub(crate) struct LogLines {
    lines: VecDeque<String>,
    /// Why no lines come, if none do.
    pub(crate) trouble: Option<String>,
}

impl LogLines {
    /// The stream begins anew, and with it come the last lines once more.
    pub(crate) fn begin(&mut self) {
        *self = Self::default();
    }

    /// Adds a line as it came, with its `w0| ` in front.
    pub(crate) fn push(&mut self, line: &str) {
        if self.lines.len() == MOST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(harmless(line));
    }

    /// The last `count` lines, of one worker if one is given.
    pub(crate) fn last(&self, count: usize, of: Option<u32>) -> Vec<&str> {
        let prefix = of.map_or_else(String::new, |id| format!("w{id}|"));
        let lines = self.lines.iter().rev().filter(|line| line.starts_with(&prefix));
        let mut last: Vec<_> = lines.take(count).map(String::as_str).collect();
        last.reverse();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut log = LogLines::default();
        for number in 0..MOST_LINES + 5 {
            log.push(&format!("w0| {number}"));
        }
        assert_eq!(log.last(usize::MAX, None).len(), MOST_LINES);
        assert_eq!(log.last(2, None), ["w0| 1003", "w0| 1004"]);
    }

    #[test]
    fn the_lines_of_one_worker_are_only_its_own() {
        let mut log = LogLines::default();
        for line in ["w1| one", "w11| eleven", "supervisor| w1 is ready", "w1| two"] {
            log.push(line);
        }
        assert_eq!(log.last(9, Some(1)), ["w1| one", "w1| two"]);
        assert_eq!(log.last(1, Some(11)), ["w11| eleven"]);
    }

    #[test]
    fn a_line_cannot_move_the_cursor_or_colour_the_screen() {
        let mut log = LogLines::default();
        log.push("w0| \u{1b}[31mred\u{1b}[0m\u{1b}[2J\u{1b}]0;title\u{7} a\tb\r");
        assert_eq!(log.last(1, None), ["w0| red a    b"]);
    }
}
