//! Where settings are taken from. Nothing else is read.

use std::path::PathBuf;

/// The name of the configuration file in the directories where it is looked for.
const FILE_NAME: &str = "bellwether.toml";

/// All that decides about the settings.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: FileChoice,
    /// The environment; what is not meant for us is ignored.
    pub environment: Vec<(String, String)>,
    /// What the command line asks for, later ones last. Wins over everything.
    pub flags: Vec<Assignment>,
    /// Values that the command brings along in the place of the defaults. Anything the user says wins over them.
    pub defaults: Vec<Assignment>,
}

/// One key that is given a value outside of files and environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// `section.name`.
    pub key: String,
    /// A TOML value, or plain text.
    pub value: String,
    /// What gave it, for messages and `config show --origin`: `--set`, `--workers`, `up`.
    pub by: String,
}

/// Which configuration file is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FileChoice {
    /// None.
    #[default]
    Nothing,
    /// This one; it has to exist.
    Named(PathBuf),
    /// The first of these that exists, if any does.
    FirstOf(Vec<PathBuf>),
}

impl Assignment {
    /// `by` gives `key` the value `value`.
    pub fn new(key: impl Into<String>, value: impl Into<String>, by: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), by: by.into() }
    }

    /// Reads `KEY=VALUE` as `--set` takes it; `None` when there is no `=`.
    pub fn from_set(text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=')?;
        Some(Self::new(key.trim(), value, "--set"))
    }
}

impl FileChoice {
    /// `named` when it is given, else the first of the usual places: the working directory, the one systemd names, `/etc`.
    pub fn usual(named: Option<PathBuf>, environment: &[(String, String)]) -> Self {
        if let Some(path) = named {
            return Self::Named(path);
        }
        let configured = environment.iter().find(|(name, _)| name == "CONFIGURATION_DIRECTORY");
        let directories = configured.map(|(_, value)| value.split(':')).into_iter().flatten();
        let mut candidates = vec![PathBuf::from(FILE_NAME)];
        candidates.extend(
            directories
                .filter(|directory| !directory.is_empty())
                .map(|directory| PathBuf::from(directory).join(FILE_NAME)),
        );
        candidates.push(PathBuf::from("/etc/bellwether").join(FILE_NAME));
        Self::FirstOf(candidates)
    }
}

impl Sources {
    /// The usual file and this process's environment. Variables that are not UTF-8 are left out: none of ours can be.
    pub fn of_this_process(named: Option<PathBuf>) -> Self {
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file: FileChoice::usual(named, &environment), environment, ..Self::default() }
    }
}
