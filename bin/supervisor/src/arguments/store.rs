//! `supervisor db` and `supervisor token`: the worker's executable takes these on.

use clap::{Args, Subcommand, ValueEnum};

use super::{Json, SeedSize, WorkerBin};

#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Bring the database up to date
    #[command(after_help = "Example:\n  DATABASE_URL=postgres://localhost/shop supervisor db migrate")]
    Migrate(WorkerBin),
    /// Compare the database with this version; exit code 4 when it is older
    #[command(after_help = "Example:\n  supervisor db status --json")]
    Status {
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        worker: WorkerBin,
    },
    /// Undo the newest migration together with the data it holds
    #[command(after_help = "Example:\n  supervisor db rollback --yes")]
    Rollback {
        /// Really
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        worker: WorkerBin,
    },
    /// Fill the database with demo data
    #[command(after_help = "Example:\n  supervisor db seed large --if-empty")]
    Seed {
        /// 1,000 or 120,000 products
        #[arg(value_name = "SIZE", default_value = "small")]
        size: SeedSize,
        /// Do nothing when there are products already
        #[arg(long)]
        if_empty: bool,
        #[command(flatten)]
        worker: WorkerBin,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// What its bearer may do
    #[arg(long, value_name = "ROLE", default_value = "admin")]
    pub(crate) role: Role,
    /// The vendor whose products a vendor may change
    #[arg(long, value_name = "ID", required_if_eq("role", "vendor"))]
    pub(crate) vendor: Option<String>,
    /// How long it is valid, in hours
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    pub(crate) hours: u64,
    #[command(flatten)]
    pub(crate) worker: WorkerBin,
}

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Admin,
    Vendor,
    Retailer,
}
