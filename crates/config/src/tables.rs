//! Lists of `[[section.name]]` tables: every fault of every table at once, each at its place.

mod policy;
mod process;

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

pub use self::policy::{
    Algorithm, Count, KeyPart, Lease, Method, OnOutage, PathGlob, Policy, PolicyKey, PolicyName, TIER_NAMES, Tier,
    Tiers,
};
pub use self::process::{Process, ProcessName, Word};
use crate::setting::{Fault, Faults, Setting, described};

/// A kind of table, of which the file may hold any number.
pub(crate) trait Table: Clone + 'static {
    /// The key of the list.
    const KEY: &'static str;
    /// What one of them is called in messages, with its article.
    const ONE: &'static str;
    /// What several are called.
    const SEVERAL: &'static str;
    /// What stands in it.
    const FIELDS: &'static [Field<Self>];

    /// What it is before it has been read; the required fields are then all set, or a fault is reported.
    fn unread() -> Self;

    /// The names it takes; no other table of its list may take any of them.
    fn names(&self) -> Vec<String>;

    /// A field whose value cannot be, and why.
    fn out_of_range(&self) -> Option<(&'static str, &'static str)>;
}

/// One field of a table.
pub(crate) struct Field<T> {
    name: &'static str,
    is_required: bool,
    about: &'static str,
    slot: fn(&mut T) -> &mut dyn Setting,
}

impl<T> Field<T> {
    pub(crate) const fn required(
        name: &'static str,
        about: &'static str,
        slot: fn(&mut T) -> &mut dyn Setting,
    ) -> Self {
        Self { name, is_required: true, about, slot }
    }

    pub(crate) const fn optional(
        name: &'static str,
        about: &'static str,
        slot: fn(&mut T) -> &mut dyn Setting,
    ) -> Self {
        Self { is_required: false, ..Self::required(name, about, slot) }
    }
}

/// The pattern of what [`is_name`] accepts.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9_-]{1,64}$";

/// Whether `text` is 1 to 64 letters, digits, `-` and `_`.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// Reads the whole list.
pub(crate) fn read<T: Table>(value: &Spanned<DeValue<'_>>) -> Result<Vec<T>, Faults> {
    let Some(items) = value.get_ref().as_array() else {
        let message = format!("expected [[{}]] tables, found {}", T::KEY, described(value.get_ref()));
        return Err(vec![Fault::new(value.span(), message)]);
    };
    let (mut tables, mut faults, mut taken) = (Vec::new(), Faults::new(), HashSet::new());
    for item in items.iter() {
        match read_one::<T>(item) {
            Ok(table) => {
                let clash = table.names().into_iter().find(|name| !taken.insert(name.clone()));
                faults.extend(clash.map(|name| named_twice::<T>(item, &name)));
                tables.push(table);
            }
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(tables) } else { Err(faults) }
}

/// The list as TOML.
pub(crate) fn value<T: Table>(tables: &[T]) -> toml::Value {
    let table = |table: &T| {
        let mut table = table.clone();
        let fields = T::FIELDS.iter().filter_map(|field| {
            let value = (field.slot)(&mut table).value()?;
            Some((field.name.to_owned(), value))
        });
        toml::Value::Table(fields.collect())
    };
    toml::Value::Array(tables.iter().map(table).collect())
}

/// The JSON Schema of the list.
pub(crate) fn schema<T: Table>() -> serde_json::Value {
    let mut table = T::unread();
    let properties: serde_json::Map<_, _> = T::FIELDS
        .iter()
        .map(|field| {
            let mut schema = (field.slot)(&mut table).schema();
            schema["description"] = json!(field.about);
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<_> = T::FIELDS.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    json!({
        "type": "array",
        "items": { "type": "object", "properties": properties, "required": required, "additionalProperties": false },
    })
}

fn read_one<T: Table>(value: &Spanned<DeValue<'_>>) -> Result<T, Faults> {
    let Some(table) = value.get_ref().as_table() else {
        let message = format!("expected a table that describes {}, found {}", T::ONE, described(value.get_ref()));
        return Err(vec![Fault::new(value.span(), message)]);
    };
    let mut read = T::unread();
    let mut faults = Faults::new();
    for (name, value) in table.iter() {
        let outcome = match T::FIELDS.iter().find(|field| field.name == name.get_ref()) {
            Some(field) => (field.slot)(&mut read).set(value),
            None => Err(vec![unknown_field::<T>(name)]),
        };
        faults.extend(outcome.err().into_iter().flatten());
    }
    let is_missing = |field: &&Field<T>| field.is_required && !table.contains_key(field.name);
    for field in T::FIELDS.iter().filter(is_missing) {
        faults.push(Fault::new(value.span(), format!("{} needs `{}`", T::ONE, field.name)));
    }
    if faults.is_empty()
        && let Some((field, message)) = read.out_of_range()
    {
        faults.push(Fault::new(table.get(field).map_or_else(|| value.span(), Spanned::span), message));
    }
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}

fn unknown_field<T: Table>(name: &Spanned<Cow<'_, str>>) -> Fault {
    let names: Vec<_> = T::FIELDS.iter().map(|field| field.name).collect();
    let message = format!("{} has no `{}` in this version; it takes {}", T::ONE, name.get_ref(), names.join(", "));
    Fault::unknown(name.span(), message, name.get_ref(), names.iter().copied())
}

fn named_twice<T: Table>(table: &Spanned<DeValue<'_>>, name: &str) -> Fault {
    let span = table.get_ref().get("name").map_or_else(|| table.span(), Spanned::span);
    Fault::new(span, format!("two {} are named `{name}`", T::SEVERAL))
}
