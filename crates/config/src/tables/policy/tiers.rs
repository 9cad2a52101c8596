//! `tiers` of a policy: other limits for some roles of users.

use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use crate::setting::{Fault, Faults, Kind, Scalar, Setting, described, parse_toml};

/// What a user's tier may be: the roles that tokens are issued for.
pub const TIER_NAMES: [&str; 3] = ["admin", "vendor", "retailer"];

/// What those of one tier may do in the place of the policy's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Requests per window; 0 denies all.
    Limit(u32),
    /// As much as they like.
    Unlimited,
}

/// Other limits by tier, each of [`TIER_NAMES`] at most once, in the order of the alphabet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tiers(Vec<(String, Tier)>);

const UNLIMITED: &str = "unlimited";

impl Tiers {
    /// Each tier with what it may do.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Tier)> {
        self.0.iter().map(|(name, tier)| (name.as_str(), *tier))
    }

    /// The limits there are, without those that have none.
    pub(crate) fn limits(&self) -> impl Iterator<Item = u32> {
        self.iter().filter_map(|(_, tier)| match tier {
            Tier::Limit(limit) => Some(limit),
            Tier::Unlimited => None,
        })
    }
}

impl Scalar for Tier {
    const KIND: Kind = Kind::IntegerOrText;
    const EXPECTED: &'static str = "a limit such as 600, or \"unlimited\"";

    fn parse(text: &str) -> Option<Self> {
        if text == UNLIMITED { Some(Self::Unlimited) } else { text.parse().ok().map(Self::Limit) }
    }

    fn text(&self) -> String {
        match self {
            Self::Limit(limit) => limit.to_string(),
            Self::Unlimited => UNLIMITED.to_owned(),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "const": UNLIMITED }] })
    }
}

impl Setting for Tiers {
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults> {
        let Some(table) = value.get_ref().as_table() else {
            let found = described(value.get_ref());
            let message = format!("expected tiers such as {{ retailer = 600, admin = \"unlimited\" }}, found {found}");
            return Err(vec![Fault::new(value.span(), message)]);
        };
        let (mut read, mut faults) = (Vec::new(), Faults::new());
        for (name, value) in table.iter() {
            if !TIER_NAMES.contains(&name.get_ref().as_ref()) {
                let message = format!("there is no tier `{}`; there are {}", name.get_ref(), TIER_NAMES.join(", "));
                faults.push(Fault::unknown(name.span(), message, name.get_ref(), TIER_NAMES.into_iter()));
            }
            let mut tier = Tier::Unlimited;
            match tier.set(value) {
                Ok(()) => read.push((name.get_ref().to_string(), tier)),
                Err(more) => faults.extend(more),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        read.sort_by(|(one, _), (other, _)| String::cmp(one, other));
        *self = Self(read);
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Faults> {
        self.set(&parse_toml(text)?)
    }

    fn value(&self) -> Option<toml::Value> {
        let tiers = self.0.iter().filter_map(|(name, tier)| Some((name.clone(), tier.value()?)));
        (!self.0.is_empty()).then(|| toml::Value::Table(tiers.collect()))
    }

    fn schema(&self) -> serde_json::Value {
        let tiers: serde_json::Map<_, _> =
            TIER_NAMES.iter().map(|name| ((*name).to_owned(), <Tier as Scalar>::schema())).collect();
        json!({ "type": "object", "properties": tiers, "additionalProperties": false })
    }
}
