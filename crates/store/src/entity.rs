//! The tables as SeaORM sees them. Private: callers get the types of `model`.
//!
//! Ids are UUIDv7 as 36 lower-case characters and times are Unix milliseconds, so that a row looks
//! and sorts the same in both databases and in their shells.

pub(crate) mod catalogue;
pub(crate) mod category;
pub(crate) mod product;
pub(crate) mod vendor;
