//! `key` of a policy: one thing, a list of things that all count, or the first of several that is there.

use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use super::KeyPart;
use crate::setting::{Fault, Faults, Kind, Scalar, Setting, described, parse_toml};

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyKey {
    /// Those that agree in all of these.
    All(Vec<KeyPart>),
    /// Those that agree in the first of these that they have.
    First(Vec<KeyPart>),
}

const HEADER: &str = "header:";

impl Scalar for KeyPart {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "\"address\", \"user\", \"api_key\", \"route\" or \"header:NAME\"";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "address" => Some(Self::Address),
            "user" => Some(Self::User),
            "api_key" => Some(Self::ApiKey),
            "route" => Some(Self::Route),
            _ => {
                let name = text.strip_prefix(HEADER)?.to_ascii_lowercase();
                let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                (!name.is_empty() && name.bytes().all(is_token)).then_some(Self::Header(name))
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Address => "address".to_owned(),
            Self::User => "user".to_owned(),
            Self::ApiKey => "api_key".to_owned(),
            Self::Route => "route".to_owned(),
            Self::Header(name) => format!("{HEADER}{name}"),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(address|user|api_key|route|header:.+)$" })
    }
}

impl Setting for PolicyKey {
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults> {
        *self = match value.get_ref() {
            DeValue::Array(_) => Self::All(parts(value)?),
            DeValue::Table(table) => match (table.len(), table.get("first")) {
                (1, Some(list)) => Self::First(parts(list)?),
                _ => return Err(vec![Fault::new(value.span(), "expected { first = [...] } and nothing else in it")]),
            },
            _ => {
                let mut part = KeyPart::Address;
                part.set(value)?;
                Self::All(vec![part])
            }
        };
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Faults> {
        self.set(&parse_toml(text)?)
    }

    fn value(&self) -> Option<toml::Value> {
        match self {
            Self::All(parts) if parts.len() == 1 => parts[0].value(),
            Self::All(parts) => parts.value(),
            Self::First(parts) => {
                let first = parts.value()?;
                Some(toml::Value::Table(toml::Table::from_iter([("first".to_owned(), first)])))
            }
        }
    }

    fn schema(&self) -> serde_json::Value {
        let (part, list) = (<KeyPart as Scalar>::schema(), Vec::<KeyPart>::new().schema());
        let first = json!({
            "type": "object", "properties": { "first": list }, "required": ["first"], "additionalProperties": false,
        });
        json!({ "anyOf": [part, list, first] })
    }
}

fn parts(value: &Spanned<DeValue<'_>>) -> Result<Vec<KeyPart>, Faults> {
    let mut parts = Vec::<KeyPart>::new();
    parts.set(value)?;
    if parts.is_empty() {
        let found = described(value.get_ref());
        return Err(vec![Fault::new(
            value.span(),
            format!("expected {}, found {found} of nothing", KeyPart::EXPECTED),
        )]);
    }
    Ok(parts)
}
