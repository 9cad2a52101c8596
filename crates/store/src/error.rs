//! What can go wrong, sorted by what a caller can do about it.

use sea_orm::{DbErr, RuntimeErr};
use sqlx::error::{DatabaseError, ErrorKind};

/// Why the database did not do what it was asked.
///
/// The texts are for logs: they may name tables and constraints, never the URL or a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL or a limit makes no sense. Nothing helps but another configuration.
    #[error("the database's configuration is invalid: {0}")]
    Configuration(String),
    /// The database is away, or all connections stayed taken for two seconds. Try again in
    /// seconds. A write may have happened all the same when its last answer was lost.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// Somebody else held a lock for too long, or a statement ran out of time. Nothing was
    /// written; trying again at once is sensible.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// The disk is full. Reads still work.
    #[error("the database has no space left: {0}")]
    Full(String),
    /// The write breaks a rule of the data (unique slug, price and stock not negative).
    #[error("the write breaks a rule of the data: {0}")]
    Conflict(String),
    /// What is stored cannot be what this program wrote. Restore a backup.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// The tables are missing, or older or newer than this program. Migrate, or run the other
    /// version.
    #[error("the database's schema does not fit this program: {0}")]
    Schema(String),
    /// A statement this crate wrote is wrong: a bug, worth a report.
    #[error("the database refused a statement: {0}")]
    Internal(String),
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::ConnectionAcquire(cause) => Self::Unavailable(cause.to_string()),
            DbErr::Conn(RuntimeErr::SqlxError(cause))
            | DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause)) => Self::from(&*cause),
            DbErr::Type(text) | DbErr::Json(text) => Self::Corrupt(text),
            DbErr::TryIntoErr { .. } => Self::Corrupt(error.to_string()),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<&sqlx::Error> for Error {
    fn from(error: &sqlx::Error) -> Self {
        let text = error.to_string();
        match error {
            sqlx::Error::Configuration(_) => Self::Configuration(text),
            sqlx::Error::Database(cause) => Self::from(&**cause),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unavailable(text),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(text),
            _ => Self::Internal(text),
        }
    }
}

impl From<&dyn DatabaseError> for Error {
    fn from(error: &dyn DatabaseError) -> Self {
        let text = error.message().to_owned();
        if error.kind() != ErrorKind::Other {
            return Self::Conflict(text);
        }
        let code = error.code().unwrap_or_default();
        if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            from_sqlite(code.parse().unwrap_or(0), text)
        } else {
            from_postgres(&code, text)
        }
    }
}

/// By the primary result code, the low byte of an extended one (<https://sqlite.org/rescode.html>).
fn from_sqlite(code: u32, text: String) -> Error {
    match code & 0xff {
        5 | 6 => Error::Busy(text),
        8 | 10 | 14 | 23 => Error::Unavailable(text),
        11 | 26 => Error::Corrupt(text),
        13 => Error::Full(text),
        19 => Error::Conflict(text),
        1 if text.starts_with("no such table") || text.starts_with("no such column") => Error::Schema(text),
        _ => Error::Internal(text),
    }
}

/// By SQLSTATE (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
fn from_postgres(code: &str, text: String) -> Error {
    match code {
        // Lock timeout, statement timeout, idle in transaction, serialization failure, deadlock.
        "55P03" | "57014" | "25P03" | "40001" | "40P01" => Error::Busy(text),
        "53100" => Error::Full(text),
        "42P01" | "42703" => Error::Schema(text),
        "XX001" | "XX002" => Error::Corrupt(text),
        "3D000" | "28000" | "28P01" => Error::Configuration(text),
        _ => match code.get(..2) {
            // Connection exceptions, too few resources, the server going down or coming up; and
            // 25: a connection in a state that this crate never leaves it in.
            Some("08" | "53" | "57" | "58" | "25") => Error::Unavailable(text),
            Some("22" | "23") => Error::Conflict(text),
            _ => Error::Internal(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_lead_to_the_same_decisions() {
        let text = || "text".to_owned();
        for code in [5, 6, 261, 517] {
            assert_eq!(from_sqlite(code, text()), Error::Busy(text()), "sqlite {code}");
        }
        for code in ["55P03", "57014", "40001", "40P01"] {
            assert_eq!(from_postgres(code, text()), Error::Busy(text()), "postgres {code}");
        }
        assert_eq!(from_sqlite(13, text()), from_postgres("53100", text()));
        assert_eq!(from_sqlite(11, text()), from_postgres("XX001", text()));
        assert_eq!(from_sqlite(2067, text()), from_postgres("23505", text()));
        for code in ["08006", "53300", "57P01", "57P03", "25P02"] {
            assert_eq!(from_postgres(code, text()), Error::Unavailable(text()), "postgres {code}");
        }
        let missing = "no such table: product".to_owned();
        assert_eq!(from_sqlite(1, missing.clone()), from_postgres("42P01", missing));
    }
}
