//! The schema's version: is it this program's, and making it so.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait};
use sea_orm_migration::{MigratorTrait, SchemaManager, seaql_migrations};

use crate::{Error, Store, migration::Migrations};

/// How long to wait for another process that migrates or seeds.
const PATIENCE: Duration = Duration::from_secs(300);

/// `"bellwthr"` as a number: the advisory lock of everything that changes the whole database.
const ADVISORY_LOCK: i64 = 0x6265_6c6c_7774_6872;

/// How the database's schema compares with this program's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// They are equal.
    Current,
    /// These migrations are to be applied, in this order.
    Older {
        /// Their names.
        pending: Vec<String>,
    },
    /// A newer program applied these, which this one does not know. Migrations only ever add what older
    /// programs can ignore until these are gone, so a worker may go on serving; changing the schema is refused.
    Newer {
        /// Their names.
        unknown: Vec<String>,
    },
}

impl Store {
    /// Compares, without changing anything.
    pub async fn schema(&self) -> Result<Schema, Error> {
        compare(self.reader()).await
    }

    /// Applies what is pending, all or nothing, and tells what that was. Any number of processes may
    /// try at once: each migration is applied once.
    pub async fn migrate(&self) -> Result<Vec<String>, Error> {
        let transaction = self.begin_exclusive().await?;
        let pending = match compare(&transaction).await? {
            Schema::Current => Vec::new(),
            Schema::Older { pending } => pending,
            Schema::Newer { unknown } => return Err(newer(&unknown)),
        };
        if !pending.is_empty() {
            Migrations::up(&transaction, None).await?;
            transaction.commit().await?;
        }
        Ok(pending)
    }

    /// Undoes the newest migration **with the data it holds**, and tells which it was.
    pub async fn rollback_newest_migration(&self) -> Result<Option<String>, Error> {
        let transaction = self.begin_exclusive().await?;
        if let Schema::Newer { unknown } = compare(&transaction).await? {
            return Err(newer(&unknown));
        }
        let newest = applied(&transaction).await?.pop();
        if newest.is_some() {
            Migrations::down(&transaction, Some(1)).await?;
            transaction.commit().await?;
        }
        Ok(newest)
    }

    /// A transaction that no other process has at the same time, for work that may take minutes.
    pub(crate) async fn begin_exclusive(&self) -> Result<DatabaseTransaction, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.begin().await.map_err(Error::from) {
                // SQLite gives up after its busy timeout, however long the other one needs.
                Err(Error::Busy(_)) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
                Ok(transaction) => {
                    if transaction.get_database_backend() == DbBackend::Postgres {
                        lock_postgres(&transaction).await?;
                    }
                    return Ok(transaction);
                }
            }
        }
    }
}

/// Both settings and the lock end with the transaction, also when its connection is lost.
async fn lock_postgres(transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    let seconds = PATIENCE.as_secs();
    let sql = format!(
        "SET LOCAL statement_timeout = '{seconds}s'; SET LOCAL lock_timeout = '{seconds}s'; \
         SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"
    );
    transaction.execute_unprepared(&sql).await.map(drop)
}

fn newer(unknown: &[String]) -> Error {
    Error::Schema(format!("it is newer than this program, which does not know {}", unknown.join(", ")))
}

async fn compare<'c, C>(connection: &'c C) -> Result<Schema, Error>
where
    C: ConnectionTrait,
    &'c C: sea_orm::IntoDatabaseExecutor<'c>,
{
    let applied = applied(connection).await?;
    let known: Vec<String> = Migrations::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let missing_in = |names: &[String], other: &[String]| -> Vec<String> {
        names.iter().filter(|name| !other.contains(name)).cloned().collect()
    };
    let unknown = missing_in(&applied, &known);
    if !unknown.is_empty() {
        return Ok(Schema::Newer { unknown });
    }
    let pending = missing_in(&known, &applied);
    Ok(if pending.is_empty() { Schema::Current } else { Schema::Older { pending } })
}

/// The names of the migrations that were applied, oldest first.
async fn applied<'c, C>(connection: &'c C) -> Result<Vec<String>, DbErr>
where
    C: ConnectionTrait,
    &'c C: sea_orm::IntoDatabaseExecutor<'c>,
{
    if !SchemaManager::new(connection).has_table("seaql_migrations").await? {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> =
        seaql_migrations::Entity::find().all(connection).await?.into_iter().map(|row| row.version).collect();
    names.sort_unstable();
    Ok(names)
}
