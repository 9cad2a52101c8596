//! The layer of the configuration file.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::document::Document;
use crate::keys::{key, sections};
use crate::load::{Layering, Origin};
use crate::problem::Problem;
use crate::setting::{Fault, described};
use crate::suggest;

/// Reads the file at `path` into the settings.
pub(crate) fn read(layering: &mut Layering, path: &Path) {
    match std::fs::read_to_string(path) {
        Ok(text) => read_text(layering, path, &text),
        Err(error) => {
            let message = match error.kind() {
                ErrorKind::NotFound => "there is no such file".to_owned(),
                ErrorKind::InvalidData => "the file is not UTF-8".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            layering.problems.push(Problem::with(path.display().to_string(), message));
        }
    }
}

/// Reads `text`, which is said to be the file at `path`.
pub(crate) fn read_text(layering: &mut Layering, path: &Path, text: &str) {
    let document = Document::File { path, text };
    let before = layering.problems.len();
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut broken_lines = HashSet::new();
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        broken_lines.insert(document.line_number(span.start));
        layering.problems.push(document.problem(Fault::new(span, error.message())));
    }
    let mut reader = Reader { layering, document, path, broken_lines };
    reader.sections(table.get_ref());
    layering.problems[before..].sort_by_key(|problem| place_in_file(&problem.place));
}

struct Reader<'a> {
    layering: &'a mut Layering,
    document: Document<'a>,
    path: &'a Path,
    /// Lines that are not TOML; what the parser made of them is not worth a message.
    broken_lines: HashSet<usize>,
}

impl Reader<'_> {
    fn sections(&mut self, root: &DeTable<'_>) {
        for (name, value) in root.iter() {
            let is_section = sections().contains(&name.get_ref().as_ref());
            match value.get_ref() {
                DeValue::Table(table) if is_section => self.section(name, table),
                other if is_section => {
                    let message = format!("`{}` is a section, found {}", name.get_ref(), described(other));
                    self.fault(Fault::new(value.span(), message));
                }
                DeValue::Table(_) => {
                    let message = format!("unknown section `{}`", name.get_ref());
                    self.fault(Fault::unknown(name.span(), message, name.get_ref(), sections().into_iter()));
                }
                _ => self.unknown_key(name, name.get_ref()),
            }
        }
    }

    fn section(&mut self, section: &Spanned<DeString<'_>>, table: &DeTable<'_>) {
        for (name, value) in table.iter() {
            let path = format!("{}.{}", section.get_ref(), name.get_ref());
            match key(&path) {
                Some(key) if !self.is_broken(&value.span()) => {
                    let line = self.document.line_number(name.span().start);
                    let origin = Origin::File { path: self.path.to_owned(), line };
                    self.layering.give(key, origin, (&self.document, value.span()), |slot| slot.set(value));
                }
                Some(_) => {}
                None => self.unknown_key(name, &path),
            }
        }
    }

    fn unknown_key(&mut self, name: &Spanned<DeString<'_>>, path: &str) {
        let mut fault = Fault::new(name.span(), format!("unknown key `{path}`"));
        // Within its own section a key is called by its name alone.
        let suggestion = suggest::key(path);
        fault.suggestion = suggestion.map(|key| same_section(path, &key).map_or(key.clone(), str::to_owned));
        self.fault(fault);
    }

    fn fault(&mut self, fault: Fault) {
        if !self.is_broken(&fault.span) {
            self.layering.problems.push(self.document.problem(fault));
        }
    }

    fn is_broken(&self, span: &std::ops::Range<usize>) -> bool {
        self.broken_lines.contains(&self.document.line_number(span.start))
    }
}

/// The name of `key` when it is in the section of `path`.
fn same_section<'a>(path: &str, key: &'a str) -> Option<&'a str> {
    let (section, _) = path.split_once('.')?;
    key.strip_prefix(section)?.strip_prefix('.')
}

/// Line and column of a place written as `file:line:column`.
fn place_in_file(place: &str) -> (usize, usize) {
    let mut numbers = place.rsplit(':').map(|part| part.parse().unwrap_or(0));
    let column = numbers.next().unwrap_or(0);
    (numbers.next().unwrap_or(0), column)
}
