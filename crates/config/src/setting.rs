//! How one value is read from a document or from plain text, shown, and described.

use std::ops::Range;

use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use crate::suggest;

/// Something wrong within one document, at a range of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl Fault {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), suggestion: None }
    }

    pub(crate) fn unknown<'a>(
        span: Range<usize>,
        what: String,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        Self { suggestion: suggest::nearest(name, known), ..Self::new(span, what) }
    }

    /// The same fault in a document that has `offset` bytes before this one's text.
    pub(crate) fn shifted(mut self, offset: usize) -> Self {
        self.span = self.span.start + offset..self.span.end + offset;
        self
    }
}

pub(crate) type Faults = Vec<Fault>;

/// Which TOML types a scalar may be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    IntegerOrText,
    Boolean,
}

/// A value that has one textual form.
pub(crate) trait Scalar: Sized {
    /// How it is written in TOML.
    const KIND: Kind;
    /// What to write, for error messages: "a duration such as \"30s\"".
    const EXPECTED: &'static str;
    /// Whether [`Scalar::text`] may hold a password.
    const SECRET: bool = false;

    /// Reads the textual form.
    fn parse(text: &str) -> Option<Self>;

    /// What is wrong with a text that [`Scalar::parse`] refuses, when there is more to say than what was expected.
    fn reason(_text: &str) -> Option<String> {
        None
    }

    /// The textual form, which [`Scalar::parse`] reads back.
    fn text(&self) -> String;

    /// The textual form without secrets.
    fn shown(&self) -> String {
        self.text()
    }

    /// Its JSON Schema.
    fn schema() -> serde_json::Value {
        match Self::KIND {
            Kind::Text => json!({ "type": "string" }),
            Kind::Integer => json!({ "type": "integer", "minimum": 0 }),
            Kind::IntegerOrText => json!({ "type": ["integer", "string"] }),
            Kind::Boolean => json!({ "type": "boolean" }),
        }
    }
}

/// The place of one key's value inside the settings.
pub(crate) trait Setting {
    /// Takes the value from a document.
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults>;

    /// Takes the value from an environment variable or a flag, where quotes may be left out.
    fn set_text(&mut self, text: &str) -> Result<(), Faults>;

    /// The value as TOML, `None` when there is none.
    fn value(&self) -> Option<toml::Value>;

    /// The value as TOML without secrets.
    fn shown(&self) -> Option<toml::Value> {
        self.value()
    }

    /// Whether the value may hold a password.
    fn is_secret(&self) -> bool {
        false
    }

    /// Whether the value does hold one.
    fn holds_password(&self) -> bool {
        self.value() != self.shown()
    }

    /// Its JSON Schema.
    fn schema(&self) -> serde_json::Value;
}

impl<T: Scalar> Setting for T {
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults> {
        *self = scalar(value)?;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Faults> {
        *self = plain_or_quoted(text)?;
        Ok(())
    }

    fn value(&self) -> Option<toml::Value> {
        Some(to_toml(T::KIND, self.text()))
    }

    fn shown(&self) -> Option<toml::Value> {
        Some(to_toml(T::KIND, Scalar::shown(self)))
    }

    fn is_secret(&self) -> bool {
        T::SECRET
    }

    fn schema(&self) -> serde_json::Value {
        T::schema()
    }
}

impl<T: Scalar> Setting for Option<T> {
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults> {
        *self = Some(scalar(value)?);
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Faults> {
        *self = Some(plain_or_quoted(text)?);
        Ok(())
    }

    fn value(&self) -> Option<toml::Value> {
        self.as_ref().and_then(Setting::value)
    }

    fn shown(&self) -> Option<toml::Value> {
        self.as_ref().and_then(Setting::shown)
    }

    fn is_secret(&self) -> bool {
        T::SECRET
    }

    fn schema(&self) -> serde_json::Value {
        T::schema()
    }
}

impl<T: Scalar> Setting for Vec<T> {
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults> {
        let Some(items) = value.get_ref().as_array() else {
            return Err(vec![Fault::new(
                value.span(),
                format!("expected a list of {}, found {}", T::EXPECTED, described(value.get_ref())),
            )]);
        };
        let (mut read, mut faults) = (Vec::new(), Vec::new());
        for item in items.iter() {
            match scalar(item) {
                Ok(item) => read.push(item),
                Err(more) => faults.extend(more),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        *self = read;
        Ok(())
    }

    /// Either a TOML list or plain items with commas between them; `[::1]:80` is such an item.
    fn set_text(&mut self, text: &str) -> Result<(), Faults> {
        if text.trim_start().starts_with('[') && text.trim_end().ends_with(']') {
            return self.set(&parse_toml(text)?);
        }
        let (mut read, mut faults, mut start) = (Vec::new(), Vec::new(), 0);
        for item in text.split(',') {
            match from_text(start..start + item.len(), item) {
                Ok(item) => read.push(item),
                Err(fault) => faults.push(fault),
            }
            start += item.len() + 1;
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        *self = read;
        Ok(())
    }

    fn value(&self) -> Option<toml::Value> {
        let items = self.iter().map(|item| to_toml(T::KIND, item.text()));
        Some(toml::Value::Array(items.collect()))
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// Parses a TOML value that stands alone.
pub(crate) fn parse_toml(text: &str) -> Result<Spanned<DeValue<'_>>, Faults> {
    DeValue::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..text.len());
        vec![Fault::new(span, error.message())]
    })
}

/// A value in words, for "found …".
pub(crate) fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("`{text}`"),
        DeValue::Integer(number) => format!("`{number}`"),
        DeValue::Float(number) => format!("`{number}`"),
        DeValue::Boolean(flag) => format!("`{flag}`"),
        DeValue::Datetime(time) => format!("`{time}`"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn scalar<T: Scalar>(value: &Spanned<DeValue<'_>>) -> Result<T, Faults> {
    let parsed = match (T::KIND, value.get_ref()) {
        (Kind::Text | Kind::IntegerOrText, DeValue::String(text)) => T::parse(text),
        (Kind::Integer | Kind::IntegerOrText, DeValue::Integer(number)) => {
            decimal(number).and_then(|number| T::parse(&number))
        }
        (Kind::Boolean, DeValue::Boolean(flag)) => T::parse(&flag.to_string()),
        _ => None,
    };
    parsed.ok_or_else(|| {
        let reason = value.get_ref().as_str().and_then(T::reason);
        vec![unexpected::<T>(value.span(), &described(value.get_ref()), reason)]
    })
}

/// TOML also has hexadecimal, octal and binary integers.
fn decimal(number: &toml::de::DeInteger<'_>) -> Option<String> {
    let value = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
    Some(value.to_string())
}

/// `found` is left out where it may be a secret.
fn unexpected<T: Scalar>(span: Range<usize>, found: &str, reason: Option<String>) -> Fault {
    let expected = T::EXPECTED;
    let message = match reason {
        _ if T::SECRET => format!("expected {expected}"),
        Some(reason) => format!("expected {expected}, found {found}: {reason}"),
        None => format!("expected {expected}, found {found}"),
    };
    Fault::new(span, message)
}

/// A value outside of files. Text may stand in quotes, as it does in files.
fn plain_or_quoted<T: Scalar>(text: &str) -> Result<T, Faults> {
    if T::KIND == Kind::Text && text.starts_with(['"', '\'']) {
        return scalar(&parse_toml(text)?);
    }
    from_text(0..text.len(), text).map_err(|fault| vec![fault])
}

fn from_text<T: Scalar>(span: Range<usize>, text: &str) -> Result<T, Fault> {
    let text = text.trim();
    T::parse(text).ok_or_else(|| unexpected::<T>(span, &format!("`{text}`"), T::reason(text)))
}

fn to_toml(kind: Kind, text: String) -> toml::Value {
    match kind {
        Kind::Text => toml::Value::String(text),
        Kind::Boolean => toml::Value::Boolean(text == "true"),
        Kind::Integer | Kind::IntegerOrText => match text.parse() {
            Ok(number) if number >= 0 => toml::Value::Integer(number),
            _ => toml::Value::String(text),
        },
    }
}
