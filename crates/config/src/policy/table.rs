//! Reading the list of policies: every fault of every table at once, each at its place.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use serde_json::json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Algorithm, OnOutage, PathGlob, Policy, PolicyKey, PolicyName};
use crate::setting::{Fault, Faults, Setting, described, parse_toml};

/// One field of a policy's table.
struct Field {
    name: &'static str,
    is_required: bool,
    about: &'static str,
    slot: fn(&mut Policy) -> &mut dyn Setting,
}

impl Field {
    const fn required(name: &'static str, about: &'static str, slot: fn(&mut Policy) -> &mut dyn Setting) -> Self {
        Self { name, is_required: true, about, slot }
    }

    const fn optional(name: &'static str, about: &'static str, slot: fn(&mut Policy) -> &mut dyn Setting) -> Self {
        Self { is_required: false, ..Self::required(name, about, slot) }
    }
}

const FIELDS: &[Field] = &[
    Field::required("name", "Appears in headers.", |policy| &mut policy.name),
    Field::optional("paths", "Globs; /x/** matches /x too. All by default.", |policy| &mut policy.paths),
    Field::optional("methods", "All by default.", |policy| &mut policy.methods),
    Field::optional("key", "Whose requests are counted together.", |policy| &mut policy.key),
    Field::optional("algorithm", "How they are counted.", |policy| &mut policy.algorithm),
    Field::required("limit", "Requests per window.", |policy| &mut policy.limit),
    Field::required("window", "The length of a window.", |policy| &mut policy.window),
    Field::optional("on_outage", "What happens while Redis is away.", |policy| &mut policy.on_outage),
];

impl Policy {
    /// What a policy is before its table has been read; the required fields are then all set, or a fault is reported.
    fn unread() -> Self {
        Self {
            name: PolicyName(String::new()),
            paths: vec![PathGlob("/**".to_owned())],
            methods: Vec::new(),
            key: PolicyKey::Address,
            algorithm: Algorithm::FixedWindow,
            limit: 1,
            window: Duration::from_secs(1),
            on_outage: OnOutage::Local,
        }
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Faults> {
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("expected a table that describes a policy, found {}", described(value.get_ref()));
            return Err(vec![Fault::new(value.span(), message)]);
        };
        let mut policy = Self::unread();
        let mut faults = Faults::new();
        for (name, value) in table.iter() {
            let outcome = match FIELDS.iter().find(|field| field.name == name.get_ref()) {
                Some(field) => (field.slot)(&mut policy).set(value),
                None => Err(vec![unknown_field(name)]),
            };
            faults.extend(outcome.err().into_iter().flatten());
        }
        let is_missing = |field: &&Field| field.is_required && !table.contains_key(field.name);
        for field in FIELDS.iter().filter(is_missing) {
            faults.push(Fault::new(value.span(), format!("a policy needs `{}`", field.name)));
        }
        if faults.is_empty() {
            faults.extend(policy.out_of_range(table));
        }
        if faults.is_empty() { Ok(policy) } else { Err(faults) }
    }

    fn out_of_range(&self, table: &DeTable<'_>) -> Option<Fault> {
        let (field, message) = if self.limit == 0 {
            ("limit", "a limit is at least 1")
        } else if self.window < Duration::from_secs(1) {
            ("window", "a window is at least 1s long")
        } else if self.paths.is_empty() {
            ("paths", "a policy without paths applies to nothing; leave `paths` out for all")
        } else {
            return None;
        };
        let span = table.get(field).map_or(0..0, Spanned::span);
        Some(Fault::new(span, message))
    }
}

impl Setting for Vec<Policy> {
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults> {
        let Some(items) = value.get_ref().as_array() else {
            let message = format!("expected [[rate_limit.policy]] tables, found {}", described(value.get_ref()));
            return Err(vec![Fault::new(value.span(), message)]);
        };
        let (mut policies, mut faults, mut names) = (Self::new(), Faults::new(), HashSet::new());
        for item in items.iter() {
            match Policy::read(item) {
                Ok(policy) if !names.insert(policy.name.clone()) => {
                    let message = format!("two policies are named `{}`", policy.name);
                    faults.push(Fault::new(span_of_name(item), message));
                }
                Ok(policy) => policies.push(policy),
                Err(more) => faults.extend(more),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        *self = policies;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Faults> {
        self.set(&parse_toml(text)?)
    }

    fn value(&self) -> Option<toml::Value> {
        let table = |policy: &Policy| {
            let mut policy = policy.clone();
            let fields = FIELDS.iter().filter_map(|field| {
                let value = (field.slot)(&mut policy).value()?;
                Some((field.name.to_owned(), value))
            });
            toml::Value::Table(fields.collect())
        };
        Some(toml::Value::Array(self.iter().map(table).collect()))
    }

    fn schema(&self) -> serde_json::Value {
        let mut policy = Policy::unread();
        let properties: serde_json::Map<_, _> = FIELDS
            .iter()
            .map(|field| {
                let mut schema = (field.slot)(&mut policy).schema();
                schema["description"] = json!(field.about);
                (field.name.to_owned(), schema)
            })
            .collect();
        let required: Vec<_> = FIELDS.iter().filter(|field| field.is_required).map(|field| field.name).collect();
        json!({
            "type": "array",
            "items": { "type": "object", "properties": properties, "required": required, "additionalProperties": false },
        })
    }
}

fn unknown_field(name: &Spanned<std::borrow::Cow<'_, str>>) -> Fault {
    let names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
    let message = format!("a policy has no `{}` in this version; it takes {}", name.get_ref(), names.join(", "));
    Fault::unknown(name.span(), message, name.get_ref(), names.iter().copied())
}

fn span_of_name(policy: &Spanned<DeValue<'_>>) -> Range<usize> {
    policy.get_ref().get("name").map_or_else(|| policy.span(), Spanned::span)
}
