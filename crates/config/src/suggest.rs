//! "Did you mean …?"

use crate::keys::{KEYS, Key};

/// How alike two names must be (Jaro–Winkler, 0 to 1) before one is offered for the other.
const ALIKE: f64 = 0.8;

/// The known name that is most like `name`, if any is like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate.to_owned())
}

/// A key for something that is none: `supervisor.workres`, or `workers` without its section.
pub(crate) fn key(path: &str) -> Option<String> {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let neighbour = || {
        let names = KEYS.iter().filter(|key| key.section() == section).map(Key::name);
        nearest(name, names).map(|name| format!("{section}.{name}"))
    };
    let anywhere = || {
        let name = nearest(name, KEYS.iter().map(Key::name))?;
        KEYS.iter().find(|key| key.name() == name).map(|key| key.path.to_owned())
    };
    neighbour().or_else(anywhere)
}
