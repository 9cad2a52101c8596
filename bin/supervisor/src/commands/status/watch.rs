//! `supervisor status --watch`: the table anew every second, on a terminal in the place of the last one.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use supervise::control::{Client, ClientError};
use supervise::status::Status;

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::{signals, table};

const EVERY: Duration = Duration::from_secs(1);

/// Shows `status` and what follows it until a signal asks to end, the reader leaves, or the supervisor is gone.
pub(super) fn run(socket: &Path, mut status: Status, output: &Output) -> Result<Exit, Failure> {
    let (tell, ending) = mpsc::channel();
    let waits = signals::on_ending(move || {
        // Nobody listens any more when the command is about to end anyway.
        let _ = tell.send(());
    });
    waits.map_err(|error| Failure::new(Exit::Code(70), error))?;
    let mut screen = Screen::of_this_process(output);
    loop {
        if screen.show(&status).is_err() {
            return Ok(Exit::Done);
        }
        match ending.recv_timeout(EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Done),
        }
        status = ask(socket)?;
    }
}

/// A supervisor that replaces its own program hangs up and answers the next connection, so one try is not enough.
fn ask(socket: &Path) -> Result<Status, Failure> {
    let once = || Client::connect(socket)?.status();
    let answer = once().or_else(|error| if matches!(error, ClientError::Closed) { once() } else { Err(error) });
    answer.map_err(|error| match error {
        ClientError::Closed | ClientError::NotRunning(_) => Failure::new(Exit::Code(3), "the supervisor has ended"),
        error => error.into(),
    })
}

/// Where the tables go.
struct Screen {
    output: Output,
    is_redrawn: bool,
    /// Of the table that is shown.
    lines: usize,
}

impl Screen {
    fn of_this_process(output: &Output) -> Self {
        let is_dumb = std::env::var("TERM").is_ok_and(|terminal| terminal == "dumb");
        Self { output: output.clone(), is_redrawn: io::stdout().is_terminal() && !is_dumb, lines: 0 }
    }

    fn show(&mut self, status: &Status) -> io::Result<()> {
        let mut text = String::new();
        let mut most_lines = usize::MAX;
        if self.is_redrawn
            && let Some((width, height)) = terminal_size::terminal_size_of(io::stdout())
        {
            let width = Some(usize::from(width.0));
            if self.lines > 0 && self.output.width != width {
                // A terminal of another width has wrapped the table; only a clean screen helps.
                text.push_str("\u{1b}[H\u{1b}[2J");
                self.lines = 0;
            }
            self.output.width = width;
            // The cursor rests on the line below the table.
            most_lines = usize::from(height.0).saturating_sub(1);
        }
        let table = table::render(status, &self.output, Timestamp::now());
        let lines: Vec<_> = table.lines().take(most_lines).collect();
        if self.is_redrawn {
            text.push_str(&redrawn(self.lines, &lines));
        } else {
            text.extend(lines.iter().flat_map(|line| [line, "\n"]));
        }
        self.lines = lines.len();
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

/// Writes `lines` over the last `above` lines of the terminal, and clears what is left of those. Each line is cleared before it
/// is written, since behind a full line the cursor stands on its last character.
fn redrawn(above: usize, lines: &[&str]) -> String {
    let up = if above > 0 { format!("\u{1b}[{above}A") } else { String::new() };
    let lines = lines.iter().map(|line| format!("\u{1b}[K{line}\n"));
    format!("{up}{}\u{1b}[J", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_written_over_the_last_one() {
        assert_eq!(redrawn(0, &["a", "b"]), "\u{1b}[Ka\n\u{1b}[Kb\n\u{1b}[J");
        assert_eq!(redrawn(2, &["c"]), "\u{1b}[2A\u{1b}[Kc\n\u{1b}[J", "the second line of two is left behind");
    }
}
