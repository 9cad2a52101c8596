//! The compiled policies, and sets of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{config::Policy, error::Error, headers, paths::Glob};

const MAX_POLICIES: usize = 64;
/// What fits a counter in Redis together with its window and a batch of waiting requests.
const MAX_LIMIT: u64 = 1_000_000_000_000;
const MIN_WINDOW: Duration = Duration::from_millis(1);
const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);
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

    #[cfg(test)]
    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits.into())
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

/// All policies of a limiter.
#[derive(Debug)]
pub struct Policies {
    compiled: Vec<Compiled>,
    /// `RateLimit-Policy` by set. There are as many sets as kinds of request, not as many as requests.
    headers: Mutex<HashMap<PolicySet, Arc<str>>>,
}

#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) name: String,
    pub(crate) limit: u64,
    pub(crate) window: Duration,
    pub(crate) window_us: u64,
    paths: Vec<Glob>,
    methods: Vec<String>,
    covers_head: bool,
}

impl Policies {
    /// Checks and compiles `policies`.
    pub fn new(policies: &[Policy]) -> Result<Self, Error> {
        if policies.len() > MAX_POLICIES {
            return Err(Error::TooManyPolicies(policies.len()));
        }
        let mut compiled: Vec<Compiled> = Vec::with_capacity(policies.len());
        for policy in policies {
            if compiled.iter().any(|other| other.name == policy.name) {
                return Err(Error::DuplicateName(policy.name.clone()));
            }
            let problem = |problem| Error::Policy { name: policy.name.clone(), problem };
            compiled.push(Compiled::new(policy).map_err(problem)?);
        }
        Ok(Self { compiled, headers: Mutex::default() })
    }

    /// The policies that apply to a request. `path` is the path as the router sees it, without the query: decoding it
    /// differently would let a client spell its way around a policy.
    pub fn matching(&self, method: &str, path: &str) -> PolicySet {
        let mut set = 0;
        for (number, policy) in self.compiled.iter().enumerate() {
            if policy.applies_to(method, path) {
                set |= 1 << number;
            }
        }
        PolicySet(set)
    }

    /// The `RateLimit-Policy` header of `set`.
    pub fn header(&self, set: PolicySet) -> Arc<str> {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let header = headers.entry(set).or_insert_with(|| headers::policies(self, set).into());
        Arc::clone(header)
    }

    /// The name of a policy of one of this list's decisions.
    pub fn name(&self, policy: u8) -> &str {
        &self.get(policy).name
    }

    pub(crate) fn get(&self, policy: u8) -> &Compiled {
        &self.compiled[usize::from(policy)]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Compiled> {
        self.compiled.iter()
    }
}

impl Compiled {
    fn new(policy: &Policy) -> Result<Self, &'static str> {
        if policy.name.is_empty() || policy.name.len() > MAX_NAME_BYTES || !policy.name.bytes().all(is_name_byte) {
            return Err("a name has 1 to 64 letters, digits, -, _ and .");
        }
        if policy.limit > MAX_LIMIT {
            return Err("the limit is above 1,000,000,000,000");
        }
        if !(MIN_WINDOW..=MAX_WINDOW).contains(&policy.window) {
            return Err("the window is not between 1 ms and 366 days");
        }
        if policy
            .methods
            .iter()
            .any(|method| method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            return Err("a method is written in capital letters, such as GET");
        }
        Ok(Self {
            name: policy.name.clone(),
            limit: policy.limit,
            window: policy.window,
            window_us: policy.window.as_micros() as u64,
            paths: policy.paths.iter().map(|glob| Glob::parse(glob)).collect::<Result<_, _>>()?,
            methods: policy.methods.clone(),
            covers_head: policy.methods.iter().any(|method| method == "GET"),
        })
    }

    fn applies_to(&self, method: &str, path: &str) -> bool {
        // HEAD costs what GET costs, and must not be a way around its limit.
        let method_applies = self.methods.is_empty()
            || self.methods.iter().any(|other| other == method)
            || self.covers_head && method == "HEAD";
        method_applies && (self.paths.is_empty() || self.paths.iter().any(|glob| glob.matches(path)))
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
