//! How long each kind of query took: one sample per operation, whatever became of it.

use std::time::Instant;

use telemetry::{Histogram, Registry};

/// The buckets OpenTelemetry names for database calls, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// What the database was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    FindProduct,
    ListProducts,
    UpdateProduct,
    ListCategories,
    ReadCatalogueVersion,
    Ping,
}

#[derive(Clone)]
pub(crate) struct Metrics {
    durations: [Histogram; 6],
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, system: &'static str) -> Self {
        // In the order of `Operation`.
        let names = ["product.find", "product.list", "product.update", "category.list", "catalogue.version", "ping"];
        let durations = names.map(|name| {
            registry.histogram(
                "db_client_operation_duration_seconds",
                "Duration of database operations, waiting for a connection included",
                &[("db_system_name", system), ("db_operation_name", name)],
                &BUCKETS,
            )
        });
        Self { durations }
    }

    pub(crate) fn record(&self, operation: Operation, started: Instant) {
        self.durations[operation as usize].record(started.elapsed().as_secs_f64());
    }
}
