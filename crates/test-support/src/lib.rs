#![doc = include_str!("../README.md")]

mod binaries;
mod control;
mod endpoint;
mod eventually;
mod guard;
mod histogram;
pub mod http;
mod load;
mod places;
mod postgres;
pub mod process;
pub mod prometheus;
mod proxy;
mod redis;
mod resp;

pub use binaries::Binaries;
pub use control::Control;
pub use endpoint::Endpoint;
pub use eventually::{Outcome, eventually, eventually_async};
pub use guard::GuardedChild;
pub use histogram::Histogram;
pub use load::{Connections, Failure, FailureKind, Load, LoadReport, RunningLoad};
pub use nix::sys::signal::Signal;
pub use places::{free_port, unique_prefix};
pub use postgres::Postgres;
pub use proxy::{FaultProxy, Mode, Traffic};
pub use redis::{Redis, RedisCluster, RedisSentinel};
