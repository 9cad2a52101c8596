//! `supervisor limits`: the worker's executable takes these on, and checks what stands in them.

use clap::{Args, Subcommand};

use super::{Json, WorkerBin};

#[derive(Debug, Subcommand)]
pub(crate) enum Limits {
    /// List the policies, also while Redis is away
    #[command(after_help = "Examples:\n  supervisor limits ls\n  supervisor limits ls --json | jq '.policies[].name'")]
    Ls {
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        worker: WorkerBin,
    },
    /// Show what is left for one client
    #[command(after_help = "\
Examples:
  supervisor limits show address:192.0.2.1
  supervisor limits show user:019384b9-5a00-7595-a52f-8b1b7c7a2966 --json

Whoever has a tier with a limit of its own is shown with the policy's limit all the same.")]
    Show {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        json: Json,
    },
    /// Forget what has been counted for one client, and end a block
    #[command(after_help = "Example:\n  supervisor limits reset address:192.0.2.1")]
    Reset(Whom),
    /// Deny one client everything that a policy applies to, for a while
    #[command(after_help = "\
Examples:
  supervisor limits block address:2001:db8::1 --for 10m
  supervisor limits block api_key:@key.txt --for 1d --policy uploads
  supervisor limits block 6f1c0a8f54bb3c9d9b6f6f0e1d2c3b4a --for 1h     a hash from the log

What was counted until then is forgotten.")]
    Block {
        #[command(flatten)]
        whom: Whom,
        /// For how long, such as 10m
        #[arg(long = "for", value_name = "DURATION")]
        duration: String,
    },
    /// End a block
    #[command(after_help = "Example:\n  supervisor limits unblock address:192.0.2.1")]
    Unblock(Whom),
}

/// One client, and under which policies.
#[derive(Debug, Args)]
pub(crate) struct Whom {
    /// address:IP, user:ID, api_key:@FILE, api_key:- (from stdin), header:NAME=VALUE, or a hash from the log
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Only under this policy; repeatable [default: all that count by this kind of key]
    #[arg(long = "policy", value_name = "NAME")]
    pub(crate) policies: Vec<String>,
    #[command(flatten)]
    pub(crate) worker: WorkerBin,
}
