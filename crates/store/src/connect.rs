//! Opening connection pools with everything that sqlx and the databases leave dangerous set.

use std::{
    fs::OpenOptions,
    future::Future,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use sea_orm::{DatabaseConnection, SqlxPostgresConnector, SqlxSqliteConnector};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqliteConnection,
    pool::PoolOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};

use crate::{Config, Error};

/// How long an operation waits for a free connection (sqlx: 30 s, longer than any request lives).
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long SQLite waits for another process's write to end.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection unused for this long is asked whether it still lives before it is handed out.
const IDLE_BEFORE_PING: Duration = Duration::from_secs(1);

/// How long a released connection may take to show that no transaction is left open on it.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(2);

/// The pools of one process.
pub(crate) struct Pools {
    /// For queries outside of a transaction.
    pub(crate) reader: DatabaseConnection,
    /// For transactions. On PostgreSQL the same pool as `reader`.
    pub(crate) writer: DatabaseConnection,
    /// As OpenTelemetry calls the database.
    pub(crate) system: &'static str,
    /// Where it is, without credentials.
    pub(crate) address: String,
}

pub(crate) async fn open(config: &Config) -> Result<Pools, Error> {
    if config.max_connections == 0 {
        return Err(Error::Configuration("at least one connection is needed".into()));
    }
    match config.url.split_once(':') {
        Some(("sqlite", _)) => open_sqlite(config).await,
        Some(("postgres" | "postgresql", _)) => open_postgres(config),
        // The rest of the URL may be a secret.
        _ => Err(Error::Configuration("the URL must begin with sqlite:// or postgres://".into())),
    }
}

fn pool_options<DB: sqlx::Database>(max_connections: u32) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_secs(600))
        .max_lifetime(Duration::from_secs(1800))
}

/// Connects nothing: a worker starts, and answers from its cache, while PostgreSQL is away.
fn open_postgres(config: &Config) -> Result<Pools, Error> {
    let options = PgConnectOptions::from_str(&config.url)
        .map_err(|error| Error::from(&error))?
        .application_name("bellwether")
        .options([("statement_timeout", "5s"), ("lock_timeout", "2s"), ("idle_in_transaction_session_timeout", "10s")])
        .disable_statement_logging();
    let address = postgres_address(&options);
    let pool = pool_options(config.max_connections)
        .test_before_acquire(false)
        .before_acquire(|connection: &mut PgConnection, metadata| {
            Box::pin(async move {
                if metadata.idle_for > IDLE_BEFORE_PING {
                    within(CLEAN_TIMEOUT, connection.ping()).await?;
                }
                Ok(true)
            })
        })
        .after_release(|connection: &mut PgConnection, _| {
            Box::pin(within(CLEAN_TIMEOUT, end_forgotten_transaction(connection)))
        })
        .connect_lazy_with(options);
    let writer = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    Ok(Pools { reader: writer.clone(), writer, system: "postgresql", address })
}

fn postgres_address(options: &PgConnectOptions) -> String {
    let place = match options.get_socket() {
        Some(directory) => directory.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    format!("postgres://{place}/{}", options.get_database().unwrap_or_default())
}

/// Rolls back a transaction that nobody owns any more.
///
/// sqlx 0.9.0 forgets the transaction of a `begin` that was cancelled half-way, and the next
/// borrower of the connection would work inside it and lose what it wrote. A bare `ROLLBACK` would do, but
/// outside of a transaction (nearly always) PostgreSQL writes a warning into its log for each.
async fn end_forgotten_transaction(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    if connection.execute("BEGIN; ROLLBACK").await.is_err() {
        // Inside a failed transaction `BEGIN` is refused, and only `ROLLBACK` is not.
        connection.execute("ROLLBACK").await?;
    }
    Ok(true)
}

/// An error, which makes the pool drop the connection, when the server does not answer in time: else
/// a connection whose peer vanished would hold its place in the pool for a quarter of an hour.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// One connection writes and the others read: SQLite has one writer at a time anyway, and in a pool's
/// queue the wait is fair and costs no thread.
async fn open_sqlite(config: &Config) -> Result<Pools, Error> {
    if config.url.contains(":memory:") || config.url.contains("mode=memory") {
        return Err(Error::Configuration("a database in memory would be another one in every worker".into()));
    }
    let options = SqliteConnectOptions::from_str(&config.url)
        .map_err(|error| Error::from(&error))?
        // Set on the handle itself, before the first pragma can meet a lock.
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        // A commit is on the disk before it is acknowledged. NORMAL would lose the last ones when the
        // power fails, and orders will live in this file.
        .synchronous(SqliteSynchronous::Full)
        // Kibibytes per connection. What is read often is cached above, what is not is in the system's page cache.
        .pragma("cache_size", "-512")
        .pragma("wal_autocheckpoint", "1000")
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging();
    let address = format!("sqlite://{}", options.get_filename().display());
    create_private_file(options.get_filename())?;
    switch_to_wal(&options).await?;
    let open_pool = |max_connections, options| {
        SqlxSqliteConnector::from_sqlx_sqlite_pool(
            // A file needs no question whether it is still there.
            pool_options(max_connections).test_before_acquire(false).connect_lazy_with(options),
        )
    };
    Ok(Pools {
        reader: open_pool(config.max_connections, options.clone().pragma("query_only", "ON")),
        writer: open_pool(1, options),
        system: "sqlite",
        address,
    })
}

/// Creates a missing file for this user alone; SQLite gives its `-wal` and `-shm` the same mode.
fn create_private_file(path: &Path) -> Result<(), Error> {
    let created = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    created.map(drop).map_err(|error| Error::Unavailable(format!("{}: {error}", path.display())))
}

/// The mode is a property of the file, so this writes once in its life. It needs a moment when nobody
/// else has the file open, for which SQLite does not wait by itself.
async fn switch_to_wal(options: &SqliteConnectOptions) -> Result<(), Error> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let switched = async {
            let mut connection: SqliteConnection = options.connect().await?;
            connection.execute(AssertSqlSafe("PRAGMA journal_mode = WAL")).await?;
            connection.close().await
        };
        match switched.await.map_err(|error| Error::from(&error)) {
            Err(Error::Busy(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            ended => return ended,
        }
    }
}
