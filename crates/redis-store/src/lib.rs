#![doc = include_str!("../README.md")]

mod config;
mod connection;
mod error;
mod examination;
mod patience;
mod reply;
mod script;
mod store;
mod subscription;
mod url;

pub use bytes::Bytes;

pub use config::{Config, Role};
pub use error::{Error, InvalidUrl, NotExamined};
pub use examination::{Examination, examine};
pub use reply::Reply;
pub use script::{Arg, Script};
pub use store::RedisStore;
pub use subscription::{Event, Subscription};
pub use url::Url;

#[cfg(test)]
mod tests;
