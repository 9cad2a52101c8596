//! The worker's command line. People use it through `supervisor`; it is spelt out here so that `--help` teaches.

mod cache;
mod limits;

use std::path::PathBuf;
use std::time::Duration;

use auth::Role;
use clap::{Args, Parser, Subcommand, ValueEnum};
use store::SeedSize;
use uuid::Uuid;

pub(crate) use self::cache::{CacheCommand, Entry, Flush};
pub(crate) use self::limits::{LimitsCommand, Whom};

/// The process that serves, and the verbs that need its database or keys.
#[derive(Debug, Parser)]
#[command(
    name = "worker",
    version,
    about,
    after_help = "Without a command it serves on the sockets that a supervisor hands over."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Where the settings come from when no supervisor hands them over.
#[derive(Debug, Args)]
pub(crate) struct SettingsArguments {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, as in --set log.level=debug; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) assignments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints a bearer token for the API
    Token {
        /// What its bearer may do
        #[arg(long, value_enum)]
        role: RoleArgument,
        /// The vendor whose products a vendor may change
        #[arg(long, value_name = "ID", required_if_eq("role", "vendor"))]
        vendor: Option<Uuid>,
        /// How long it is valid, in hours
        #[arg(long, default_value_t = 24, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..=24 * 365))]
        hours: u64,
    },
    /// Looks after the database
    #[command(subcommand)]
    Db(DatabaseCommand),
    /// Looks at limits and changes them by hand
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// Looks into the cache, and makes workers forget
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Looks whether Redis and the database are as they should be
    Doctor {
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DatabaseCommand {
    /// Brings the tables up to this program's version
    Migrate,
    /// Undoes the newest migration together with the data it holds
    Rollback {
        /// Really
        #[arg(long)]
        yes: bool,
    },
    /// Says whether the tables fit this program; exit code 4 when they are behind
    Status {
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Fills an empty catalogue with demo data, the same every time
    Seed {
        /// 1,000 or 120,000 products
        #[arg(value_enum)]
        size: SizeArgument,
        /// A catalogue with products in it is left alone and is no error
        #[arg(long)]
        if_empty: bool,
    },
    /// Prints the path of one product, for trying the API
    Sample,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArgument {
    Admin,
    Vendor,
    Retailer,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SizeArgument {
    Small,
    Large,
}

impl From<RoleArgument> for Role {
    fn from(argument: RoleArgument) -> Self {
        match argument {
            RoleArgument::Admin => Self::Admin,
            RoleArgument::Vendor => Self::Vendor,
            RoleArgument::Retailer => Self::Retailer,
        }
    }
}

impl From<SizeArgument> for SeedSize {
    fn from(argument: SizeArgument) -> Self {
        match argument {
            SizeArgument::Small => Self::Small,
            SizeArgument::Large => Self::Large,
        }
    }
}

/// The lifetime of a token of that many hours.
pub(crate) fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3_600)
}
