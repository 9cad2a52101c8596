//! What is valid and yet probably not meant. The codes are promises.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::keys::{KEYS, Key};
use crate::load::{Layering, Origin};
use crate::problem::Warning;
use crate::settings::Settings;
use crate::tables::{Algorithm, Lease, Policy, Tier};

/// Workers report every second; what is silent for less than two reports may be well.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(2);

/// A worker is granted at most this part of what is left, over the number of workers.
const LEASED_PART: u32 = 4;

/// Everything that deserves a warning.
pub(crate) fn warnings(layering: &Layering, file: Option<&Path>) -> Vec<Warning> {
    let settings = &layering.settings;
    let mut warnings = Vec::new();
    if settings.http.trusted_proxies.iter().any(crate::Network::is_everything) {
        warnings.push(Warning::new(
            "http/proxies-everybody",
            "`http.trusted_proxies` trusts everybody: any client can pretend to be another",
        ));
    }
    if settings.supervisor.hang_timeout < SHORTEST_PATIENCE {
        warnings.push(Warning::new(
            "supervisor/impatient",
            "`supervisor.hang_timeout` is below 2s and workers report every second: healthy ones may be killed",
        ));
    }
    warnings.extend(file.and_then(|path| exposed_password(layering, path)));
    if settings.rate_limit.enabled {
        warnings.extend(settings.rate_limit.policies.iter().flat_map(of_policy));
    }
    warnings
}

fn of_policy(policy: &Policy) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let name = &policy.name;
    if policy.limit == 0 {
        let message = format!("policy `{name}` has the limit 0: everything that it applies to is denied");
        warnings.push(Warning::new("rate-limit/limit-zero", message));
    }
    for (tier, _) in policy.tiers.iter().filter(|(_, tier)| *tier == Tier::Limit(0)) {
        let message = format!("policy `{name}` has the limit 0 for the tier `{tier}`: all its requests are denied");
        warnings.push(Warning::new("rate-limit/limit-zero", message));
    }
    if policy.lease == Lease::Auto && at_once(policy) < u64::from(LEASED_PART * policy.cost) {
        let message = format!(
            "policy `{name}` has `lease = \"auto\"` and too small a limit: a worker is granted at most a quarter of what \
             is left, here not even one request"
        );
        warnings.push(Warning::new("rate-limit/lease-useless", message));
    }
    warnings
}

/// The units that anybody can have at once under a policy.
fn at_once(policy: &Policy) -> u64 {
    let limits = policy.tiers.limits().chain([policy.limit]);
    let limit = match policy.algorithm {
        Algorithm::Gcra => policy.burst.or(limits.max()),
        _ => limits.max(),
    };
    limit.unwrap_or_default().into()
}

fn exposed_password(layering: &Layering, path: &Path) -> Option<Warning> {
    let mut settings: Settings = layering.settings.clone();
    let holds_password = |key: &&Key| {
        let is_in_file = matches!(layering.origin(key.path), Some(Origin::File { .. }));
        is_in_file && (key.slot)(&mut settings).holds_password()
    };
    let with_password: Vec<_> = KEYS.iter().filter(holds_password).map(|key| key.path).collect();
    if with_password.is_empty() || !is_readable_by_others(path) {
        return None;
    }
    let message = format!(
        "`{}` holds a password and every user of this machine may read {}: chmod 600 it, or give the URL in a file of its own",
        with_password.join("`, `"),
        path.display()
    );
    Some(Warning::new("secrets/readable", message))
}

fn is_readable_by_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}
