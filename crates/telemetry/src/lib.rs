#![doc = include_str!("../README.md")]

mod error;
mod format;
mod log;
mod metrics;
mod output;
mod process;
mod request;
mod snapshot;
mod traceparent;

pub use error::Error;
pub use format::Format;
pub use log::{LogConfig, LogGuard, dropped_log_lines, init, init_with_writer};
pub use metrics::{Counter, Gauge, Histogram, LATENCY_BUCKETS, Registry};
pub use process::process_snapshot;
pub use request::{RequestContext, in_request};
pub use snapshot::{Combine, Family, Series, Snapshot, Value};
pub use traceparent::{SpanId, TraceId};
