//! The cache against a real Redis: several workers, each with a thread and a runtime of its own, as processes have them.

// `cfg(test)` is always on here; clippy goes by the attribute to tell what may `unwrap`.
#[cfg(test)]
mod away;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod freshness;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod held;
#[cfg(test)]
mod invalidation;
#[cfg(test)]
mod outdated;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod tags;
