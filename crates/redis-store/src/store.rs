//! Commands and scripts, each sent at most once and answered in bounded time.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    clients::Client,
    error::{Error as ClientError, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Resp3Frame, Value, config::Options},
};

use crate::{
    config::{Config, Role},
    connection::Connection,
    error::Error,
    patience,
    reply::Reply,
    script::{Arg, Script},
    subscription::Subscription,
};

/// `first_attempt` waits no longer than this: a worker that replaces a dead one must not wait for a server that is not there. A
/// server within a continent answers a handshake sooner.
const FIRST_ATTEMPT: Duration = Duration::from_millis(250);

/// How often a command follows a slot of a cluster to another node before it waits.
const REDIRECTIONS: u32 = 5;
/// How long it waits then.
const REDIRECTED: Duration = Duration::from_millis(1);

/// A connection to Redis. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct RedisStore {
    connection: Arc<Connection>,
    config: Arc<Config>,
    timeout: Duration,
}

impl RedisStore {
    /// Starts to connect and returns at once; a connection that is lost is made again, for ever.
    ///
    /// Must be called inside a tokio runtime: the connection lives on it.
    pub fn connect(config: &Config, role: Role) -> Self {
        Self {
            connection: Arc::new(Connection::open(config, role)),
            config: Arc::new(config.clone()),
            timeout: config.command_timeout,
        }
    }

    /// The same connection with another timeout for each command.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Waits until the first attempt to connect has ended, either way; at most a quarter of a second.
    pub async fn first_attempt(&self) {
        let _ = tokio::time::timeout(FIRST_ATTEMPT, self.connection.first_attempt()).await;
    }

    /// Waits until there is a connection, for ever if need be.
    pub async fn connected(&self) {
        self.connection.connected().await;
    }

    /// Where the server is, for people: without credentials.
    pub fn address(&self) -> String {
        self.config.url.to_string()
    }

    /// Whether there is a connection now. One atomic read.
    pub fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    /// Whether this is a cluster, where the keys of one call must share a hash tag.
    pub fn is_cluster(&self) -> bool {
        self.config.url.is_cluster()
    }

    /// Runs `script`. All the keys it touches must be in `keys`.
    ///
    /// The script is called by its digest, and once more with its source when Redis does not know it; after any other
    /// error it is not sent again.
    pub async fn run(&self, script: &Script, keys: &[Bytes], args: &[Arg]) -> Result<Reply, Error> {
        match self.evaluate("EVALSHA", &script.digest, keys, args).await {
            Err(Error::Server(message)) if message.starts_with("NOSCRIPT") => {
                self.evaluate("EVAL", &script.source, keys, args).await
            }
            result => result,
        }
    }

    /// The value at `key`.
    pub async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Error> {
        let reply = self.call("GET", Some(key), vec![Value::Bytes(key.clone())]).await?;
        reply.into_optional_bytes()
    }

    /// The values at `keys`, in their order. On a cluster the keys must share a hash tag.
    pub async fn mget(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let reply = self.call("MGET", keys.first(), values(keys)).await?;
        let replies = reply.into_array()?.into_iter();
        replies.map(Reply::into_optional_bytes).collect()
    }

    /// Puts `value` at `key` for `ttl`, which is rounded up to a millisecond.
    pub async fn set(&self, key: &Bytes, value: Bytes, ttl: Duration) -> Result<(), Error> {
        let ttl_ms = i64::try_from(ttl.as_micros().div_ceil(1000).max(1)).unwrap_or(i64::MAX);
        let arguments =
            vec![Value::Bytes(key.clone()), Value::Bytes(value), Value::from_static_str("PX"), Value::Integer(ttl_ms)];
        self.call("SET", Some(key), arguments).await.map(drop)
    }

    /// Removes `keys` and tells how many there were. On a cluster the keys must share a hash tag.
    pub async fn del(&self, keys: &[Bytes]) -> Result<i64, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        self.call("DEL", keys.first(), values(keys)).await?.into_integer()
    }

    /// Subscribes to `channels` on a connection of its own. Must be called inside a tokio runtime.
    pub fn subscribe(&self, channels: Vec<String>) -> Subscription {
        Subscription::start(&self.config, channels)
    }

    async fn evaluate(
        &self,
        command: &'static str,
        script: &Bytes,
        keys: &[Bytes],
        args: &[Arg],
    ) -> Result<Reply, Error> {
        let mut arguments = Vec::with_capacity(2 + keys.len() + args.len());
        arguments.push(Value::Bytes(script.clone()));
        arguments.push(Value::Integer(keys.len() as i64));
        arguments.extend(keys.iter().cloned().map(Value::Bytes));
        arguments.extend(args.iter().map(Value::from));
        self.call(command, keys.first(), arguments).await
    }

    /// The only place that sends anything. `key` is what a cluster routes by.
    async fn call(&self, command: &'static str, key: Option<&Bytes>, arguments: Vec<Value>) -> Result<Reply, Error> {
        let client = self.connection.client().ok_or(Error::Unavailable)?;
        let route = match key {
            Some(key) if self.is_cluster() => ClusterHash::Custom(fred::util::redis_keyslot(key)),
            _ => ClusterHash::Random,
        };
        let command = CustomCommand::new_static(command, route, false);
        let reply: Pin<Box<dyn Future<Output = _> + Send>> = if self.is_cluster() {
            Box::pin(send_to_cluster(client, command, arguments))
        } else {
            let client = client.with_options(&Options { fail_fast: true, ..Options::default() });
            Box::pin(async move { client.custom_raw(command, arguments).await })
        };
        match patience::within(self.timeout, reply).await {
            Some(Ok(frame)) => {
                self.connection.replied();
                Reply::from_frame(frame)
            }
            Some(Err(error)) => Err(classify(&error)),
            None => {
                self.connection.reply_is_late();
                Err(Error::Indeterminate)
            }
        }
    }
}

/// Sends a command until the node that it goes to has its slot. A node that redirects it has not executed it.
async fn send_to_cluster(
    client: Client,
    command: CustomCommand,
    arguments: Vec<Value>,
) -> Result<Resp3Frame, ClientError> {
    // Each redirection is another attempt. What was written once is not written again: `fail_fast` sees to that.
    let options = Options { fail_fast: true, max_attempts: Some(1 + REDIRECTIONS), ..Options::default() };
    let client = client.with_options(&options);
    loop {
        match client.custom_raw(command.clone(), arguments.clone()).await {
            // A slot that is being moved: fred asks the node that it comes from again and again, instead of the one that it goes to.
            Err(error) if *error.kind() == ErrorKind::Routing => tokio::time::sleep(REDIRECTED).await,
            reply => return reply,
        }
    }
}

/// Only what fred says before it writes counts as not sent; all else may have been executed.
fn classify(error: &ClientError) -> Error {
    match error.kind() {
        ErrorKind::Canceled | ErrorKind::Backpressure | ErrorKind::Routing => Error::Unavailable,
        _ => Error::Indeterminate,
    }
}

fn values(keys: &[Bytes]) -> Vec<Value> {
    keys.iter().cloned().map(Value::Bytes).collect()
}
