//! Layering: defaults, the command's own, the file, credentials, the environment, flags.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::document::Document;
use crate::keys::{KEYS, Key, key};
use crate::problem::{Problem, Problems, Warning};
use crate::setting::{Fault, Faults, Setting};
use crate::settings::{Settings, default_database, default_token_key};
use crate::sources::{Assignment, FileChoice, Sources};
use crate::{environment, file, rules, suggest};

/// Valid settings, and where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// What is allowed and yet probably not meant.
    pub warnings: Vec<Warning>,
    origins: BTreeMap<&'static str, Origin>,
}

/// What gave a key its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The command has a default of its own.
    Command(String),
    /// A line of the configuration file.
    File {
        /// As it was named.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A file that holds nothing but this value.
    ValueFile(PathBuf),
    /// Environment variables.
    Environment(String),
    /// The command line.
    Flag(String),
}

/// One key as `config show` prints it, without secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// `section.name`.
    pub key: &'static str,
    /// The value as TOML; `None` when there is none.
    pub value: Option<toml::Value>,
    /// What gave it.
    pub origin: Origin,
}

/// The layers while they are put together.
pub(crate) struct Layering {
    pub(crate) settings: Settings,
    pub(crate) problems: Vec<Problem>,
    given: BTreeMap<&'static str, Given>,
}

/// Who gave a key its value, and a problem without a message at that place, should the value turn out to be wrong.
struct Given {
    origin: Origin,
    place: Problem,
}

/// Reads all sources, or says everything that is wrong with them.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut layering = Layering::new();
    for assignment in &sources.defaults {
        layering.assign(assignment, Origin::Command(assignment.by.clone()));
    }
    let file = chosen(&sources.file);
    if let Some(path) = &file {
        file::read(&mut layering, path);
    }
    environment::read(&mut layering, &sources.environment);
    for assignment in &sources.flags {
        layering.assign(assignment, Origin::Flag(assignment.by.clone()));
    }
    layering.derive_defaults();
    rules::check(&mut layering);
    if !layering.problems.is_empty() {
        return Err(Problems::new(layering.problems));
    }
    let warnings = rules::warnings(&layering, file.as_deref());
    let origins = layering.given.into_iter().map(|(path, given)| (path, given.origin));
    Ok(Loaded { settings: layering.settings, file, warnings, origins: origins.collect() })
}

/// Settings from the text of one file alone.
pub(crate) fn load_text(path: &Path, text: &str) -> Result<Settings, Problems> {
    let mut layering = Layering::new();
    file::read_text(&mut layering, path, text);
    rules::check(&mut layering);
    if layering.problems.is_empty() { Ok(layering.settings) } else { Err(Problems::new(layering.problems)) }
}

impl Loaded {
    /// What gave `key` its value.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Every key with its value and origin, in the order of the documentation.
    pub fn shown(&self) -> Vec<Shown> {
        let mut settings = self.settings.clone();
        let shown = KEYS.iter().map(|key| Shown {
            key: key.path,
            value: (key.slot)(&mut settings).shown(),
            origin: self.origin(key.path),
        });
        shown.collect()
    }
}

impl Layering {
    fn new() -> Self {
        Self { settings: Settings::default(), problems: Vec::new(), given: BTreeMap::new() }
    }

    /// Gives `key` a value from `document`, where it stands at `span`.
    pub(crate) fn give(
        &mut self,
        key: &'static Key,
        origin: Origin,
        (document, span): (&Document<'_>, Range<usize>),
        set: impl FnOnce(&mut dyn Setting) -> Result<(), Faults>,
    ) {
        let slot = (key.slot)(&mut self.settings);
        let is_secret = slot.is_secret();
        match set(slot) {
            Ok(()) => {
                let place = document.problem(Fault::new(span, ""));
                self.given.insert(key.path, Given { origin, place });
            }
            Err(faults) => self.problems.extend(faults.into_iter().map(|mut fault| {
                fault.message = format!("`{}`: {}", key.path, fault.message);
                let mut problem = document.problem(fault);
                if is_secret {
                    problem.excerpt = None;
                }
                problem
            })),
        }
    }

    /// Gives `key` the text that stands after `name` and one more character in a document of a single line.
    pub(crate) fn give_text(
        &mut self,
        key: &'static Key,
        origin: Origin,
        place: &'static str,
        name: &str,
        value: &str,
    ) {
        let (line, offset) = match place {
            COMMAND_LINE => (format!("{name} {value}"), name.len() + 1),
            _ => (format!("{name}={value}"), name.len() + 1),
        };
        let span = offset..line.len();
        let document = Document::Line { place, text: line };
        self.give(key, origin, (&document, span), |slot| {
            let shift = |faults: Faults| faults.into_iter().map(|fault| fault.shifted(offset)).collect();
            slot.set_text(value).map_err(shift)
        });
    }

    /// The origin of a key that has been given a value.
    pub(crate) fn origin(&self, key: &str) -> Option<&Origin> {
        self.given.get(key).map(|given| &given.origin)
    }

    /// Reports that the value of `key`, as it now is, cannot be.
    pub(crate) fn reject(&mut self, key: &str, message: &str) {
        let place = self.given.get(key).map(|given| given.place.clone());
        self.problems.push(Problem {
            message: format!("`{key}`: {message}"),
            ..place.unwrap_or_else(|| Problem::with("defaults", ""))
        });
    }

    fn assign(&mut self, assignment: &Assignment, origin: Origin) {
        let Assignment { key: path, value, by } = assignment;
        let Some(key) = key(path) else {
            let text = format!("{by} {path}=…");
            let span = by.len() + 1..by.len() + 1 + path.len();
            let mut fault = Fault::new(span, format!("unknown key `{path}`"));
            fault.suggestion = suggest::key(path);
            let document = Document::Line { place: COMMAND_LINE, text };
            self.problems.push(document.problem(fault));
            return;
        };
        let is_flag = matches!(origin, Origin::Flag(_));
        let name = if by == "--set" { format!("{by} {path}=") } else { by.clone() };
        let name = name.strip_suffix('=').unwrap_or(&name);
        self.give_text(key, origin, COMMAND_LINE, name, value);
        if is_flag && (key.slot)(&mut self.settings).holds_password() {
            let message = "a password on the command line is seen by everyone on this machine; give it in a file instead, \
                           as `config init` explains";
            self.reject(key.path, message);
        }
    }

    /// Puts what the workers own by default into their directory, which follows the state directory and their user.
    fn derive_defaults(&mut self) {
        let workers_dir = self.settings.supervisor.workers_dir();
        if !self.given.contains_key("database.url") {
            self.settings.database.url = default_database(&workers_dir);
        }
        if !self.given.contains_key("auth.token_key_file") {
            self.settings.auth.token_key_file = default_token_key(&workers_dir);
        }
    }
}

const COMMAND_LINE: &str = "command line";

fn chosen(choice: &FileChoice) -> Option<PathBuf> {
    match choice {
        FileChoice::Nothing => None,
        FileChoice::Named(path) => Some(path.clone()),
        FileChoice::FirstOf(candidates) => candidates.iter().find(|path| exists(path)).cloned(),
    }
}

/// A file that cannot be looked at exists as far as we know; reading it then says why it cannot be read.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Command(name) => write!(formatter, "default of `{name}`"),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::ValueFile(path) => write!(formatter, "file {}", path.display()),
            Self::Environment(name) => write!(formatter, "env {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}
