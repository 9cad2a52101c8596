//! What a server says about itself, for people who look for what is wrong.

use std::time::{Duration, Instant};

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
};

use crate::{
    config::Config,
    connection::Dialer,
    error::{Error, NotExamined},
    reply::Reply,
};

/// What one server says about itself; on a cluster, one of its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// Its version, as `7.2.4`. Valkey gives the version of Redis that it is compatible with.
    pub version: String,
    /// What happens when its memory is full: `noeviction`, `allkeys-lru` and so on.
    pub maxmemory_policy: String,
    /// How long each ping took, the shortest first.
    pub round_trips: Vec<Duration>,
}

/// Connects once, asks the server what it is, and pings it `pings` times.
///
/// Nothing is tried again; a caller who wants the answer by some time drops the future then.
pub async fn examine(config: &Config, pings: usize) -> Result<Examination, NotExamined> {
    let session = Dialer::for_commands(config).dial().await.map_err(NotExamined)?;
    let client = session.client();
    // Without a section it answers the usual ones, which hold all we ask for; several at once can be named only since 7.0.
    let information = ask(&client, config, "INFO").await?;
    let field = |name: &str| field(&information, name).unwrap_or_default().to_owned();
    let mut round_trips = Vec::with_capacity(pings);
    for _ in 0..pings {
        let begun = Instant::now();
        ask(&client, config, "PING").await?;
        round_trips.push(begun.elapsed());
    }
    round_trips.sort_unstable();
    Ok(Examination { version: field("redis_version"), maxmemory_policy: field("maxmemory_policy"), round_trips })
}

async fn ask(client: &Client, config: &Config, command: &'static str) -> Result<String, NotExamined> {
    let asked = client.custom_raw(CustomCommand::new_static(command, ClusterHash::Random, false), Vec::<Value>::new());
    let answered = tokio::time::timeout(config.command_timeout, asked).await;
    let frame = answered.map_err(|_| NotExamined(format!("no answer to {command} in {:?}", config.command_timeout)))?;
    let frame = frame.map_err(|error| NotExamined(error.to_string()))?;
    let text = Reply::from_frame(frame).and_then(Reply::into_bytes).map_err(|error| match error {
        Error::Server(message) => NotExamined(format!("{command} is refused: {message}")),
        other => NotExamined(other.to_string()),
    })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The value of a line `name:value`.
fn field<'a>(information: &'a str, name: &str) -> Option<&'a str> {
    information.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
