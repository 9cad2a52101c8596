//! `supervisor cache`: the supervisor knows the figures; the worker's executable does the rest.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};

use super::{Json, WorkerBin};

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Show how often workers found what they looked for, since each was started
    #[command(
        after_help = "Examples:\n  supervisor cache stats\n  supervisor cache stats --json | jq '.namespaces[].hit_ratio'"
    )]
    Stats(Json),
    /// Show what Redis holds for one key: how old, how large, with which tags
    #[command(after_help = "Example:\n  supervisor cache get product 019384b9-5a00-7595-a52f-8b1b7c7a2966")]
    Get {
        #[command(flatten)]
        entry: Entry,
        #[command(flatten)]
        json: Json,
    },
    /// Read every product through the cache, so that the first client does not wait for it
    #[command(after_help = "Example:\n  supervisor cache warm --rate 500")]
    Warm {
        /// Products in a second
        #[arg(long, default_value = "200", value_name = "PER_SECOND")]
        rate: NonZeroU32,
        #[command(flatten)]
        worker: WorkerBin,
    },
    /// Make every worker forget one key
    #[command(after_help = "Example:\n  supervisor cache del product green-tea")]
    Del(Entry),
    /// Make every worker forget what carries a tag, a namespace, or everything
    #[command(after_help = "\
Examples:
  supervisor cache flush --tag vendor:019384b9-5a00-7595-a52f-8b1b7c7a2966
  supervisor cache flush --namespace list
  supervisor cache flush --all")]
    Flush(Flush),
}

/// One entry.
#[derive(Debug, Args)]
pub(crate) struct Entry {
    /// What it is: product, list
    #[arg(value_name = "NAMESPACE")]
    pub(crate) namespace: String,
    /// Its key in the namespace
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) worker: WorkerBin,
}

/// What is to be forgotten.
#[derive(Debug, Args)]
pub(crate) struct Flush {
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) worker: WorkerBin,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct What {
    /// What carries this tag; repeatable
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// A whole namespace
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Everything
    #[arg(long)]
    pub(crate) all: bool,
}
