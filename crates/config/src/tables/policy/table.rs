//! What stands in a `[[rate_limit.policy]]` table.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::{Algorithm, OnOutage, PathGlob, Policy, PolicyKey, PolicyName};
use crate::keys::POLICY;
use crate::setting::{Faults, Setting, parse_toml};
use crate::tables::{self, Field, Table};

impl Table for Policy {
    const KEY: &'static str = POLICY;
    const ONE: &'static str = "a policy";
    const SEVERAL: &'static str = "policies";
    const FIELDS: &'static [Field<Self>] = &[
        Field::required("name", "Appears in headers.", |policy| &mut policy.name),
        Field::optional("paths", "Globs; /x/** matches /x too. All by default.", |policy| &mut policy.paths),
        Field::optional("methods", "All by default.", |policy| &mut policy.methods),
        Field::optional("key", "Whose requests are counted together.", |policy| &mut policy.key),
        Field::optional("algorithm", "How they are counted.", |policy| &mut policy.algorithm),
        Field::required("limit", "Requests per window.", |policy| &mut policy.limit),
        Field::required("window", "The length of a window.", |policy| &mut policy.window),
        Field::optional("on_outage", "What happens while Redis is away.", |policy| &mut policy.on_outage),
    ];

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

    fn names(&self) -> Vec<String> {
        vec![self.name.to_string()]
    }

    fn out_of_range(&self) -> Option<(&'static str, &'static str)> {
        if self.limit == 0 {
            Some(("limit", "a limit is at least 1"))
        } else if self.window < Duration::from_secs(1) {
            Some(("window", "a window is at least 1s long"))
        } else if self.paths.is_empty() {
            Some(("paths", "a policy without paths applies to nothing; leave `paths` out for all"))
        } else {
            None
        }
    }
}

impl Setting for Vec<Policy> {
    fn set(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), Faults> {
        *self = tables::read(value)?;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Faults> {
        self.set(&parse_toml(text)?)
    }

    fn value(&self) -> Option<toml::Value> {
        Some(tables::value(self))
    }

    fn schema(&self) -> serde_json::Value {
        tables::schema::<Policy>()
    }
}
