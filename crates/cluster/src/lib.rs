#![doc = include_str!("../README.md")]

mod host;
mod member;
mod membership;

pub use host::Host;
pub use member::{Member, Place, place};
pub use membership::Membership;

#[cfg(test)]
mod tests;
