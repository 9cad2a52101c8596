//! `worker cache`: what to look at or to forget.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Says what Redis holds for one key
    Get {
        #[command(flatten)]
        entry: Entry,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Reads every product through the cache
    Warm {
        /// Products in a second
        #[arg(long, default_value = "200", value_name = "PER_SECOND")]
        rate: NonZeroU32,
    },
    /// Makes every worker forget one key
    Del(Entry),
    /// Makes every worker forget what carries a tag, a namespace, or all
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
}

/// What is to be forgotten.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Flush {
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
