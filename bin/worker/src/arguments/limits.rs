//! `worker limits`: whom and what to look at or change.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::verbs::limits::Who;

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Lists the policies, also while Redis is away
    Ls {
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Says what is left for one client
    Show {
        #[command(flatten)]
        whom: Whom,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Forgets what has been counted, and ends a block
    Reset(Whom),
    /// Denies everything for a while
    Block {
        #[command(flatten)]
        whom: Whom,
        /// For how long, such as 10m
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        duration: Duration,
    },
    /// Ends a block
    Unblock(Whom),
}

/// One client, and under which policies.
#[derive(Debug, Args)]
pub(crate) struct Whom {
    /// address:192.0.2.1, user:ID, api_key:@FILE, api_key:-, header:NAME=VALUE, or the 32 digits that logs show
    #[arg(value_name = "KEY")]
    pub(crate) who: Who,
    /// Only under this policy; repeatable [default: all that count by this kind of key]
    #[arg(long = "policy", value_name = "NAME")]
    pub(crate) policies: Vec<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = config::parse_duration(text).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "expected a duration such as 30s, 10m or 1h30m".to_owned())
}
