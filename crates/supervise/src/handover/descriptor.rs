//! Descriptors that outlive an `execve`: serialised as their numbers, and claimed again by whoever reads them.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::child::{sealed_settings, sys};

/// A rehearsal reads what another process will be handed; it has none of the descriptors itself.
static IS_REHEARSAL: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What was serialised since the last call of [`collect`]. Serde has no place to pass it along.
    static SERIALISED: RefCell<Vec<RawFd>> = const { RefCell::new(Vec::new()) };
}

/// For `#[serde(with = "descriptor")]` on anything that owns one descriptor.
pub(crate) fn serialize<T: AsFd, S: Serializer>(owner: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let number = owner.as_fd().as_raw_fd();
    SERIALISED.with_borrow_mut(|serialised| serialised.push(number));
    number.serialize(serializer)
}

/// For `#[serde(with = "descriptor")]` on anything that owns one descriptor.
pub(crate) fn deserialize<'de, T: From<OwnedFd>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let number = RawFd::deserialize(deserializer)?;
    let stands_for_nothing = IS_REHEARSAL.load(Ordering::Relaxed);
    let claimed = if stands_for_nothing { sealed_settings(b"") } else { sys::own_inherited(number) };
    claimed.map(T::from).map_err(|error| D::Error::custom(format_args!("descriptor {number}: {error}")))
}

/// Runs `serialise` and gives the descriptors it came across, too.
pub(crate) fn collect<T>(serialise: impl FnOnce() -> T) -> (T, Vec<RawFd>) {
    SERIALISED.take();
    let result = serialise();
    (result, SERIALISED.take())
}

/// From now on, descriptors that are read stand for nothing.
pub(crate) fn rehearse() {
    IS_REHEARSAL.store(true, Ordering::Relaxed);
}

/// For `#[serde(with = "descriptor::list")]` on a `Vec` of such things.
pub(crate) mod list {
    use super::*;

    /// One of them.
    #[derive(Serialize, Deserialize)]
    #[serde(transparent, bound(serialize = "T: AsFd", deserialize = "T: From<OwnedFd>"))]
    struct One<T>(#[serde(with = "crate::handover::descriptor")] T);

    pub(crate) fn serialize<T: AsFd, S: Serializer>(owners: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(owners.iter().map(|owner| One(owner.as_fd())))
    }

    pub(crate) fn deserialize<'de, T: From<OwnedFd>, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
        Ok(Vec::<One<T>>::deserialize(d)?.into_iter().map(|One(owner)| owner).collect())
    }
}
