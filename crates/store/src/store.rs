//! The handle everything starts from, and the two ways to talk to the database: one query, or one
//! transaction.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait, RuntimeErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};
use telemetry::Registry;

use crate::{
    Categories, Config, Error, Products, connect,
    entity::catalogue,
    metrics::{Metrics, Operation},
};

/// Longer than the server's own `statement_timeout`, so that it only ends what the server cannot:
/// a wait for a peer that vanished.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(6);

/// A database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    reader: DatabaseConnection,
    writer: DatabaseConnection,
    metrics: Metrics,
    address: String,
}

impl Store {
    /// Opens a database. PostgreSQL is not connected to before the first query; a missing SQLite
    /// file is created, empty, readable for this user alone.
    pub async fn connect(config: &Config, registry: &Registry) -> Result<Self, Error> {
        let pools = connect::open(config).await?;
        let metrics = Metrics::new(registry, pools.system);
        let inner = Inner { reader: pools.reader, writer: pools.writer, metrics, address: pools.address };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The products.
    pub fn products(&self) -> Products {
        Products::new(self.clone())
    }

    /// The categories.
    pub fn categories(&self) -> Categories {
        Categories::new(self.clone())
    }

    /// A number that grows with every committed write to the catalogue. A listing read *after* this
    /// number is never older than it.
    pub async fn catalogue_version(&self) -> Result<i64, Error> {
        let work = async {
            let row = catalogue::Entity::find().one(self.reader()).await?;
            row.map(|row| row.version).ok_or_else(|| DbErr::Type("the catalogue's version is missing".into()))
        };
        self.measured(Operation::ReadCatalogueVersion, work).await
    }

    /// Where the database is, for people: without credentials, and no URL to connect with.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Whether the database answers; ends within seconds either way.
    pub async fn ping(&self) -> Result<(), Error> {
        self.measured(Operation::Ping, self.reader().execute_unprepared("SELECT 1")).await.map(drop)
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.writer.clone().close().await?;
        Ok(self.inner.reader.clone().close().await?)
    }

    pub(crate) fn reader(&self) -> &DatabaseConnection {
        &self.inner.reader
    }

    /// Runs one operation under the deadline and records how long it took.
    pub(crate) async fn measured<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let result = match tokio::time::timeout(OPERATION_TIMEOUT, work).await {
            Ok(result) => result.map_err(Error::from),
            Err(_) => Err(Error::Unavailable(format!("no answer within {OPERATION_TIMEOUT:?}"))),
        };
        self.inner.metrics.record(operation, started);
        result
    }

    /// The only place where a transaction begins. It takes the write lock at once on SQLite, where
    /// a transaction that starts by reading cannot wait for it later.
    ///
    /// It runs in a task of its own, so that a caller who is cancelled leaves a whole transaction to
    /// be rolled back and never half a `BEGIN` (sqlx 0.9.0 hands such a connection out again).
    #[allow(clippy::disallowed_methods, reason = "must outlive its caller by one round trip, on any runtime")]
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let writer = self.inner.writer.clone();
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let begun = tokio::spawn(async move { writer.begin_with_options(options).await }).await;
        begun.unwrap_or_else(|ended| Err(DbErr::Conn(RuntimeErr::Internal(ended.to_string()))))
    }
}
