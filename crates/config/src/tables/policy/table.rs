//! What stands in a `[[rate_limit.policy]]` table.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::{Algorithm, Count, KeyPart, Lease, OnOutage, PathGlob, Policy, PolicyKey, PolicyName};
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
        Field::optional("burst", "Requests at once, for gcra and pacing.", |policy| &mut policy.burst),
        Field::optional("max_delay", "How long pacing holds a request up at most.", |policy| &mut policy.max_delay),
        Field::optional("cost", "What a request counts for; 1 by default.", |policy| &mut policy.cost),
        Field::optional("count", "Which answers count; all by default.", |policy| &mut policy.count),
        Field::optional("lease", "Whether a worker may take requests ahead.", |policy| &mut policy.lease),
        Field::optional("shadow", "Whether it only counts and reports.", |policy| &mut policy.shadow),
        Field::optional("on_outage", "What happens while Redis is away.", |policy| &mut policy.on_outage),
    ];

    fn unread() -> Self {
        Self {
            name: PolicyName(String::new()),
            paths: vec![PathGlob("/**".to_owned())],
            methods: Vec::new(),
            key: PolicyKey::All(vec![KeyPart::Address]),
            algorithm: Algorithm::FixedWindow,
            limit: 1,
            window: Duration::from_secs(1),
            burst: None,
            max_delay: None,
            cost: 1,
            count: Count::All,
            lease: Lease::Off,
            shadow: false,
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
            self.does_not_fit()
        }
    }
}

impl Policy {
    /// A field that the algorithm does not take, or needs.
    fn does_not_fit(&self) -> Option<(&'static str, &'static str)> {
        let is_bucket = matches!(self.algorithm, Algorithm::Gcra | Algorithm::Pacing);
        let can_lease = !matches!(self.algorithm, Algorithm::SlidingLog | Algorithm::Pacing | Algorithm::Concurrency);
        if self.cost == 0 {
            Some(("cost", "a cost is at least 1"))
        } else if self.burst == Some(0) {
            Some(("burst", "a burst is at least 1"))
        } else if self.burst.is_some() && !is_bucket {
            Some(("burst", "only gcra and pacing have a burst"))
        } else if self.max_delay.is_some() && self.algorithm != Algorithm::Pacing {
            Some(("max_delay", "only pacing delays"))
        } else if self.max_delay.is_none() && self.algorithm == Algorithm::Pacing {
            Some(("algorithm", "pacing needs max_delay"))
        } else if self.limit > 1_000 && self.algorithm == Algorithm::SlidingLog {
            Some(("limit", "a sliding log holds at most 1000; a sliding window takes more"))
        } else if self.lease == Lease::Auto && !can_lease {
            Some(("lease", "this algorithm cannot be leased"))
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
