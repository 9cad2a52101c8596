//! The compiled policies, and sets of them.

mod paths;

use bytes::Bytes;

use crate::{
    config::{Algorithm, Config, Count, Error, Key, KeyPart, Lease, OnOutage, Policy, Tier},
    headers::policy_item,
    request::{Part, Parts, Request},
    rule::Rule,
    subject::{Identities, Subject},
};

use self::paths::Glob;

const MAX_POLICIES: usize = 64;
const MAX_NAME_BYTES: usize = 64;

/// The policies that apply to a request. Made by [`Policies::matching`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PolicySet(u64);

impl PolicySet {
    /// Whether no policy applies.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many policies apply.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Those of both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those of either set.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The numbers of its policies, from 0, in the order of the configuration.
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let number = rest.trailing_zeros();
                rest &= rest - 1;
                number as u8
            })
        })
    }
}

impl FromIterator<u8> for PolicySet {
    fn from_iter<I: IntoIterator<Item = u8>>(numbers: I) -> Self {
        Self(numbers.into_iter().fold(0, |set, number| set | 1 << number))
    }
}

/// All policies of a limiter.
pub struct Policies {
    compiled: Vec<Compiled>,
    /// Every policy with the limit of every tier.
    rules: Vec<Rule>,
    /// What headers say of each rule, in the same order.
    announcements: Vec<Bytes>,
    /// The keys that policies count by, each once.
    keys: Vec<Key>,
    identities: Identities,
    /// Those that need to know the user.
    after_authentication: PolicySet,
    /// Those that need to know the route.
    by_route: PolicySet,
}

pub(crate) struct Compiled {
    pub(crate) name: String,
    pub(crate) count: Count,
    pub(crate) on_outage: OnOutage,
    pub(crate) lease: bool,
    /// Its place among the keys.
    key: usize,
    /// Its rule for those of no other tier.
    rule: u16,
    /// Its rules by tier; `None` is unlimited.
    tiers: Vec<(String, Option<u16>)>,
    paths: Option<Vec<Glob>>,
    methods: Vec<String>,
    covers_head: bool,
}

impl Policies {
    /// Checks and compiles the policies of `config`.
    pub fn new(config: &Config) -> Result<Self, Error> {
        if config.policies.len() > MAX_POLICIES {
            return Err(Error::TooManyPolicies(config.policies.len()));
        }
        let mut policies = Self {
            compiled: Vec::with_capacity(config.policies.len()),
            rules: Vec::new(),
            announcements: Vec::new(),
            keys: Vec::new(),
            identities: Identities { key: config.key, ipv6_prefix: config.ipv6_prefix },
            after_authentication: PolicySet::default(),
            by_route: PolicySet::default(),
        };
        for policy in &config.policies {
            if policies.compiled.iter().any(|other| other.name == policy.name) {
                return Err(Error::DuplicateName(policy.name.clone()));
            }
            let problem = |problem| Error::Policy { name: policy.name.clone(), problem };
            policies.add(policy, config.shadow).map_err(problem)?;
        }
        Ok(policies)
    }

    /// The policies that apply to a request. `path` is the path as the router sees it, without the query: decoding it
    /// differently would let a client spell its way around a policy.
    pub fn matching(&self, method: &str, path: &str) -> PolicySet {
        let matches = |(number, policy): (u8, &Compiled)| policy.applies_to(method, path).then_some(number);
        (0..).zip(&self.compiled).filter_map(matches).collect()
    }

    /// Those that can be decided only when the user is known: they count by user, or have tiers.
    pub fn after_authentication(&self) -> PolicySet {
        self.after_authentication
    }

    /// Those that count by route, which costs something to find.
    pub fn by_route(&self) -> PolicySet {
        self.by_route
    }

    /// The policy of this name, as a set of one.
    pub fn named(&self, name: &str) -> Option<PolicySet> {
        let number = self.compiled.iter().position(|policy| policy.name == name)?;
        Some([number as u8].into_iter().collect())
    }

    /// All of them.
    pub fn all(&self) -> PolicySet {
        (0..self.compiled.len() as u8).collect()
    }

    /// The names of the policies in `set`, in the order of the configuration.
    pub fn names(&self, set: PolicySet) -> impl Iterator<Item = &str> {
        set.iter().map(|number| self.name(number))
    }

    /// Those that count by exactly these kinds of things, in any order, and so can be looked up by their values.
    pub fn counting_by(&self, parts: &[KeyPart]) -> PolicySet {
        let counts = |(number, policy): (u8, &Compiled)| {
            let matches = match &self.keys[policy.key] {
                Key::All(key) => key.len() == parts.len() && parts.iter().all(|part| key.contains(part)),
                Key::First(key) => matches!(parts, [part] if key.contains(part)),
            };
            matches.then_some(number)
        };
        (0..).zip(&self.compiled).filter_map(counts).collect()
    }

    /// The name of a policy of one of this list's decisions.
    pub fn name(&self, policy: u8) -> &str {
        &self.get(policy).name
    }

    pub(crate) fn request(&self, set: PolicySet, subject: &Subject<'_>) -> Request {
        let mut known: smallvec::SmallVec<[(usize, crate::identity::Identity); 4]> = smallvec::SmallVec::new();
        let (mut parts, mut leased) = (Parts::new(), true);
        for number in set.iter() {
            let policy = self.get(number);
            let Some(rule) = policy.rule_of(subject.tier) else { continue };
            let identity = match known.iter().find(|(key, _)| *key == policy.key) {
                Some((_, identity)) => *identity,
                None => {
                    let identity = self.identities.of(&self.keys[policy.key], subject);
                    known.push((policy.key, identity));
                    identity
                }
            };
            parts.push(Part { identity, rule });
            leased &= policy.lease;
        }
        Request::new(parts, 1, leased)
    }

    /// The policies of `set` for an identity that is known by its hash alone.
    pub(crate) fn request_of(&self, set: PolicySet, identity: crate::identity::Identity) -> Request {
        let part = |number| Part { identity, rule: self.get(number).rule };
        Request::new(set.iter().map(part).collect(), 1, false)
    }

    pub(crate) fn get(&self, policy: u8) -> &Compiled {
        &self.compiled[usize::from(policy)]
    }

    pub(crate) fn rule(&self, rule: u16) -> &Rule {
        &self.rules[usize::from(rule)]
    }

    pub(crate) fn announcement(&self, rule: u16) -> &Bytes {
        &self.announcements[usize::from(rule)]
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Compiled> {
        self.compiled.iter()
    }

    fn add(&mut self, policy: &Policy, shadow: bool) -> Result<(), &'static str> {
        check(policy)?;
        let number = self.compiled.len() as u8;
        let mut rule = |limit| -> Result<u16, &'static str> {
            let place = u16::try_from(self.rules.len()).map_err(|_| "there are too many tiers")?;
            let mut rule = Rule::compile(number, policy, limit)?;
            rule.shadow |= shadow;
            self.announcements.push(policy_item(&policy.name, &rule));
            self.rules.push(rule);
            Ok(place)
        };
        let default = rule(policy.limit)?;
        let mut tiers = Vec::with_capacity(policy.tiers.len());
        for (name, tier) in &policy.tiers {
            let rule = match tier {
                Tier::Limit(limit) => Some(rule(*limit)?),
                Tier::Unlimited => None,
            };
            tiers.push((name.clone(), rule));
        }
        let key = self.keys.iter().position(|key| *key == policy.key).unwrap_or(self.keys.len());
        if key == self.keys.len() {
            self.keys.push(policy.key.clone());
        }
        if policy.key.parts().contains(&KeyPart::User) || !policy.tiers.is_empty() {
            self.after_authentication = self.after_authentication.or([number].into_iter().collect());
        }
        if policy.key.parts().contains(&KeyPart::Route) {
            self.by_route = self.by_route.or([number].into_iter().collect());
        }
        let globs = |paths: &Vec<String>| paths.iter().map(|glob| Glob::parse(glob)).collect::<Result<Vec<_>, _>>();
        self.compiled.push(Compiled {
            name: policy.name.clone(),
            count: policy.count,
            on_outage: policy.on_outage,
            lease: policy.lease == Lease::Auto,
            key,
            rule: default,
            tiers,
            paths: policy.paths.as_ref().map(globs).transpose()?,
            methods: policy.methods.clone(),
            covers_head: policy.methods.iter().any(|method| method == "GET"),
        });
        Ok(())
    }
}

impl Compiled {
    fn applies_to(&self, method: &str, path: &str) -> bool {
        // HEAD costs what GET costs, and must not be a way around its limit.
        let method_applies = self.methods.is_empty()
            || self.methods.iter().any(|other| other == method)
            || self.covers_head && method == "HEAD";
        method_applies && self.paths.as_ref().is_none_or(|paths| paths.iter().any(|glob| glob.matches(path)))
    }

    fn rule_of(&self, tier: Option<&str>) -> Option<u16> {
        let of_tier = tier.and_then(|tier| self.tiers.iter().find(|(name, _)| name == tier));
        of_tier.map_or(Some(self.rule), |(_, rule)| *rule)
    }
}

/// What concerns no rule alone.
fn check(policy: &Policy) -> Result<(), &'static str> {
    if policy.name.is_empty() || policy.name.len() > MAX_NAME_BYTES || !policy.name.bytes().all(is_name_byte) {
        return Err("a name has 1 to 64 letters, digits, -, _ and .");
    }
    let is_method = |method: &String| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !policy.methods.iter().all(is_method) {
        return Err("a method is written in capital letters, such as GET");
    }
    if policy.key.parts().is_empty() {
        return Err("a key has at least one part");
    }
    let cannot_lease =
        matches!(policy.algorithm, Algorithm::SlidingLog | Algorithm::Pacing { .. } | Algorithm::Concurrency);
    if policy.lease == Lease::Auto && cannot_lease {
        return Err("this algorithm cannot be leased");
    }
    Ok(())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
