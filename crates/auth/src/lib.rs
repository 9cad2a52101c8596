#![doc = include_str!("../README.md")]

mod claims;
mod error;
mod key_file;
mod keys;
#[cfg(test)]
mod tests;

pub use claims::{Claims, Identity, Role};
pub use error::Error;
pub use keys::{Keys, LEEWAY, MAX_TOKEN_BYTES};
