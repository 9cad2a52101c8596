//! What stands in a `[[rate_limit.policy]]` table.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::{Algorithm, Count, KeyPart, Lease, OnOutage, PathGlob, Policy, PolicyKey, PolicyName, Tiers};
use crate::keys::POLICY;
use crate::setting::{Faults, Setting, parse_toml};
use crate::tables::{self, Field, Table};

const SHORTEST_WINDOW: Duration = Duration::from_millis(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 24 * 3_600);
const LARGEST_COST: u32 = 1_000_000;
const LARGEST_BUCKET: u32 = 50_000_000;
const LARGEST_LOG: u32 = 1_000;
const MOST_AT_ONCE: u32 = 100_000;

impl Table for Policy {
    const KEY: &'static str = POLICY;
    const ONE: &'static str = "a policy";
    const SEVERAL: &'static str = "policies";
    const FIELDS: &'static [Field<Self>] = &[
        Field::required("name", "Appears in headers.", |policy| &mut policy.name),
        Field::optional(
            "paths",
            "Globs; /x/** matches /x too. All by default; [] for where code names it only.",
            |policy| &mut policy.paths,
        ),
        Field::optional("methods", "All by default.", |policy| &mut policy.methods),
        Field::optional("key", "Whose requests are counted together.", |policy| &mut policy.key),
        Field::optional("algorithm", "How they are counted.", |policy| &mut policy.algorithm),
        Field::required("limit", "Requests per window; 0 denies all.", |policy| &mut policy.limit),
        Field::optional("window", "The length of a window; only concurrency does without it.", |policy| {
            &mut policy.window
        }),
        Field::optional("burst", "Requests at once, for gcra and pacing.", |policy| &mut policy.burst),
        Field::optional("max_delay", "How long pacing holds a request up at most.", |policy| &mut policy.max_delay),
        Field::optional("cost", "What a request counts for; 1 by default.", |policy| &mut policy.cost),
        Field::optional("tiers", "Other limits by role: a number or \"unlimited\".", |policy| &mut policy.tiers),
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
            window: None,
            burst: None,
            max_delay: None,
            cost: 1,
            tiers: Tiers::default(),
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
        self.breaks_a_bound().or_else(|| self.does_not_fit())
    }
}

impl Policy {
    /// A field with a number that no script can compute with.
    fn breaks_a_bound(&self) -> Option<(&'static str, &'static str)> {
        let is_above = |bound: u32| self.limit > bound || self.burst.is_some_and(|burst| burst > bound);
        let rules = [
            ("window", self.window.is_none() && self.algorithm != Algorithm::Concurrency, "a policy needs `window`"),
            ("window", self.window() < SHORTEST_WINDOW, "a window is at least 1ms long"),
            ("window", self.window() > LONGEST_WINDOW, "a window is at most 366d long"),
            ("cost", !(1..=LARGEST_COST).contains(&self.cost), "a cost is between 1 and 1000000"),
            ("burst", self.burst == Some(0), "a burst is at least 1"),
            ("limit", self.is_bucket() && is_above(LARGEST_BUCKET), "a bucket holds at most 50000000"),
            (
                "limit",
                self.algorithm == Algorithm::Concurrency && is_above(MOST_AT_ONCE),
                "at most 100000 at the same time are counted",
            ),
        ];
        rules.into_iter().find(|rule| rule.1).map(|(field, _, message)| (field, message))
    }

    /// A field that the algorithm does not take, or needs.
    fn does_not_fit(&self) -> Option<(&'static str, &'static str)> {
        let can_lease = !matches!(self.algorithm, Algorithm::SlidingLog | Algorithm::Pacing | Algorithm::Concurrency);
        let is_pacing = self.algorithm == Algorithm::Pacing;
        let is_log = self.algorithm == Algorithm::SlidingLog;
        let too_much = "a sliding log holds at most 1000; a sliding window takes more";
        let rules = [
            ("burst", self.burst.is_some() && !self.is_bucket(), "only gcra and pacing have a burst"),
            ("max_delay", self.max_delay.is_some() && !is_pacing, "only pacing delays"),
            ("algorithm", self.max_delay.is_none() && is_pacing, "pacing needs max_delay"),
            ("limit", is_log && self.limit > LARGEST_LOG, too_much),
            ("tiers", is_log && self.tiers.limits().any(|limit| limit > LARGEST_LOG), too_much),
            ("lease", self.lease == Lease::Auto && !can_lease, "this algorithm cannot be leased"),
        ];
        rules.into_iter().find(|rule| rule.1).map(|(field, _, message)| (field, message))
    }

    fn is_bucket(&self) -> bool {
        matches!(self.algorithm, Algorithm::Gcra | Algorithm::Pacing)
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
