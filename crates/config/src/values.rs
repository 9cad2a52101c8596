//! The types of values that settings have. Each is proof that its text was valid.

mod address;
mod choice;
mod cron;
mod duration;
mod network;
mod plain;
mod size;
mod url;
mod workers;

pub use address::ListenAddress;
pub(crate) use address::parse_host;
pub use choice::{AccessLog, LogFormat, RateLimitHeaders};
pub(crate) use choice::{choices, name_in, one_of};
pub use cron::CronExpression;
pub use duration::parse_duration;
pub use network::Network;
pub use size::ByteSize;
pub(crate) use url::masked;
pub use url::{DatabaseUrl, RedisUrl};
pub use workers::Workers;
