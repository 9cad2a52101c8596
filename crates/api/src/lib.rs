#![doc = include_str!("../README.md")]

mod authentication;
mod catalogue;
mod conditional;
mod dependencies;
mod document;
mod error;
mod front;
mod health;
mod limits;
mod listing;
mod metrics;
mod product_changes;
mod products;
mod routes;
mod state;

pub use catalogue::{Catalogue, NAMESPACES, Warmed};
pub use dependencies::{Dependencies, Works};
pub use limits::{Limited, Limits, RateLimit, Settings as LimitSettings};
pub use metrics::{Metrics, own_metrics};
pub use routes::{admin_application, application};
pub use state::AppState;
