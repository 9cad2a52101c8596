//! The JSON Schema of the configuration file, for editors.

use serde_json::{Map, Value, json};

use crate::inherited::as_json;
use crate::keys::{KEYS, about_section, sections};
use crate::settings::Settings;

/// The schema (draft 2020-12).
pub fn json_schema() -> Value {
    let mut settings = Settings::default();
    let mut properties = Map::new();
    for section in sections() {
        let mut keys = Map::new();
        for key in KEYS.iter().filter(|key| key.section() == section) {
            let slot = (key.slot)(&mut settings);
            let mut schema = slot.schema();
            schema["description"] = json!(key.about.replace('\n', " "));
            if let Some(value) = slot.value() {
                schema["default"] = as_json(value);
            }
            keys.insert(key.name().to_owned(), schema);
        }
        let section_schema = json!({
            "type": "object",
            "description": about_section(section),
            "properties": keys,
            "additionalProperties": false,
        });
        properties.insert(section.to_owned(), section_schema);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Bellwether's configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}
