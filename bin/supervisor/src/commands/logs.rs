//! `supervisor logs`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use supervise::control::{Client, ClientError, LogsWanted};

use crate::arguments::{Global, Logs};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, control_socket};

/// SGR codes of colours that read well on dark and on light.
const PALETTE: [u8; 6] = [36, 32, 33, 34, 35, 31];

pub(crate) fn run(global: &Global, logs: &Logs, output: &Output) -> Result<Exit, Failure> {
    let loaded = settings::load(&settings::sources(global), output)?;
    let files = settings::log_directory(&loaded.settings);
    let client = Client::connect(&control_socket(global, &loaded.settings));
    let client = client.map_err(|error| with_place_of_files(error, &files))?;
    let wanted = LogsWanted { lines: logs.lines, follow: logs.follow, json: logs.json, source: logs.source.clone() };
    let lines = client.logs(&wanted)?;
    let lines = lines.map_err(|refusal| Failure::new(Exit::Code(refusal.code), refusal.message))?;
    let stdout = io::stdout().lock();
    let copied = if output.color && !logs.json { copy_colored(lines, stdout) } else { copy(lines, stdout) };
    match copied {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format_args!("cannot copy the log: {error}")))
        }
        _ => Ok(Exit::Done),
    }
}

/// Without a supervisor nobody has the lines any more but the files.
fn with_place_of_files(error: ClientError, files: &Path) -> Failure {
    let mut failure = Failure::from(error);
    if failure.exit == Exit::Code(3) && files.is_dir() {
        failure.message.push_str(&format!("\nwhat the last one wrote is in {}", files.display()));
    }
    failure
}

fn copy(mut lines: impl Read, mut stdout: impl Write) -> io::Result<()> {
    io::copy(&mut lines, &mut stdout)?;
    stdout.flush()
}

/// Gives the name before every line a colour that is always the same.
fn copy_colored(lines: impl Read, mut stdout: impl Write) -> io::Result<()> {
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        match line.iter().position(|&byte| byte == b'|') {
            Some(end) => {
                let (name, rest) = line.split_at(end + 1);
                write!(stdout, "\u{1b}[{}m", color_of(&name[..end]))?;
                stdout.write_all(name)?;
                stdout.write_all(b"\x1b[0m")?;
                stdout.write_all(rest)?;
            }
            None => stdout.write_all(&line)?,
        }
        line.clear();
    }
    stdout.flush()
}

/// Neighbouring workers differ.
fn color_of(name: &[u8]) -> u8 {
    let number = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix('w')?.parse::<usize>().ok());
    let index = number.unwrap_or_else(|| name.iter().map(|&byte| usize::from(byte)).sum());
    PALETTE[index % PALETTE.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_one_colour_and_its_lines_are_otherwise_untouched() {
        let mut text = Vec::new();
        copy_colored(&b"w0| a | b\nw1| \x1b[31mred\x1b[0m\nw0| no end"[..], &mut text).unwrap();
        let expected = "\u{1b}[36mw0|\u{1b}[0m a | b\n\u{1b}[32mw1|\u{1b}[0m \u{1b}[31mred\u{1b}[0m\n\
                        \u{1b}[36mw0|\u{1b}[0m no end";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
