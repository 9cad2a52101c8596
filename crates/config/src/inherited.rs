//! Handing settings to children: the supervisor resolves them once, its children take exactly those.

use std::path::Path;

use serde_json::{Map, Value};

use crate::keys::KEYS;
use crate::load::load_text;
use crate::problem::{Problem, Problems};
use crate::settings::Settings;

/// The environment variable that names the descriptor with the settings as JSON.
pub const SETTINGS_FD: &str = "BELLWETHER_SETTINGS_FD";

impl Settings {
    /// The settings as JSON, passwords included: for children only, never for output.
    pub fn to_json(&self) -> String {
        let mut settings = self.clone();
        let mut sections = Map::new();
        for key in KEYS {
            let Some(value) = (key.slot)(&mut settings).value() else { continue };
            let section = sections.entry(key.section()).or_insert_with(|| Value::Object(Map::new()));
            section[key.name()] = as_json(value);
        }
        Value::Object(sections).to_string()
    }

    /// Reads what [`Settings::to_json`] wrote, as strictly as a file.
    pub fn from_json(text: &str) -> Result<Self, Problems> {
        let toml = serde_json::from_str::<toml::Table>(text).map(|table| table.to_string());
        match toml {
            Ok(toml) => load_text(Path::new("inherited settings"), &toml),
            Err(error) => Err(unusable(&error)),
        }
    }
}

/// The settings that the supervisor hands over to this process; `None` when no supervisor started it.
pub fn from_inherited() -> Result<Option<Settings>, Problems> {
    let Some(descriptor) = std::env::var_os(SETTINGS_FD) else {
        return Ok(None);
    };
    // Opening it anew leaves the inherited descriptor's own position to our children.
    let text = std::fs::read_to_string(Path::new("/proc/self/fd").join(descriptor));
    match text {
        Ok(text) => Settings::from_json(&text).map(Some),
        Err(error) => Err(unusable(&error)),
    }
}

/// A TOML value as JSON; times do not occur in settings.
pub(crate) fn as_json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(flag) => Value::from(flag),
        toml::Value::Datetime(time) => Value::from(time.to_string()),
        toml::Value::Array(items) => items.into_iter().map(as_json).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, as_json(value))).collect())
        }
    }
}

fn unusable(error: &dyn std::error::Error) -> Problems {
    Problems::new(vec![Problem::with("inherited settings", format!("cannot be read: {error}"))])
}
