//! The settings as plain data, with their defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tables::{Policy, Process};
use crate::values::{
    AccessLog, ByteSize, CronExpression, DatabaseUrl, ListenAddress, LogFormat, Network, RateLimitHeaders, RedisUrl,
    Workers,
};

/// The file of the default database, in [`Supervisor::workers_dir`].
pub const DATABASE_FILE: &str = "bellwether.db";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[supervisor]`
    pub supervisor: Supervisor,
    /// `[http]`
    pub http: Http,
    /// `[redis]`
    pub redis: Redis,
    /// `[database]`
    pub database: Database,
    /// `[rate_limit]`
    pub rate_limit: RateLimit,
    /// `[cache]`
    pub cache: Cache,
    /// `[auth]`
    pub auth: Auth,
    /// `[log]`
    pub log: Log,
}

/// Processes, sockets and files.
#[derive(Debug, Clone, PartialEq)]
pub struct Supervisor {
    /// How many workers.
    pub workers: Workers,
    /// Where the workers serve; never empty.
    pub listen: Vec<ListenAddress>,
    /// Where metrics are served.
    pub admin_listen: SocketAddr,
    /// How long a worker may drain before it is killed.
    pub kill_timeout: Duration,
    /// How long a worker may take to become ready.
    pub ready_timeout: Duration,
    /// How long a program that reports nothing must live to count as ready.
    pub min_uptime: Duration,
    /// How long the first worker of a new generation must serve before the others are replaced; may be zero.
    pub canary: Duration,
    /// How long a worker that has reported may be silent before it is killed and replaced.
    pub hang_timeout: Duration,
    /// The resident memory of one worker at which it is replaced; zero for never.
    pub max_memory: ByteSize,
    /// The requests of one worker after which it is replaced; 0 for never.
    pub max_requests: u32,
    /// The age at which a worker is replaced; zero for never.
    pub max_age: Duration,
    /// When all workers are replaced.
    pub cron: Option<CronExpression>,
    /// Whether each worker is bound to one processor.
    pub cpu_affinity: bool,
    /// The user that workers and the processes beside them run as; the supervisor's own when absent.
    pub user: Option<String>,
    /// Where the control socket, the private Redis, logs, SQLite and generated secrets live.
    pub state_dir: PathBuf,
    /// Kinds of process beside the web workers.
    pub processes: Vec<Process>,
}

/// What the public listeners accept and reveal.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Peers whose word on the client's address is taken.
    pub trusted_proxies: Vec<Network>,
    /// The one header they give it in, in lower case.
    pub client_ip_header: String,
    /// Whether answers name the worker that gave them.
    pub expose_worker: bool,
    /// Which requests are logged one by one.
    pub access_log: AccessLog,
    /// How long an idle connection stays open.
    pub keep_alive: Duration,
    /// How long a handler may take before the client gets 504.
    pub handler_timeout: Duration,
    /// Connections per worker.
    pub max_connections: u32,
    /// Connections per client address and worker.
    pub max_connections_per_ip: u32,
}

/// Redis, in both its roles.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// The server that holds limits and other state.
    pub url: RedisUrl,
    /// The server that holds the cache; `url`'s when absent.
    pub cache_url: Option<RedisUrl>,
    /// What every key begins with.
    pub prefix: String,
    /// How long one command may take.
    pub command_timeout: Duration,
}

/// The database of record.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Where it is.
    pub url: DatabaseUrl,
}

/// Limits on requests.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Whether the policies are enforced.
    pub enabled: bool,
    /// How long a request waits for Redis before its policy's `on_outage` decides.
    pub timeout: Duration,
    /// Whether all policies only count and report.
    pub shadow: bool,
    /// How much of an IPv6 address makes a client, in bits.
    pub ipv6_prefix: u32,
    /// Addresses that are never limited.
    pub allow: Vec<Network>,
    /// Addresses that are refused, unless they are allowed above.
    pub deny: Vec<Network>,
    /// Which headers tell clients about their limits.
    pub headers: Vec<RateLimitHeaders>,
    /// The limits themselves.
    pub policies: Vec<Policy>,
}

/// The two-level cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Memory for cached values on this host, divided over the workers.
    pub l1_budget: ByteSize,
    /// How long a value stays in Redis.
    pub ttl: Duration,
    /// How long a value stays in a worker.
    pub l1_ttl: Duration,
    /// How long a worker's values are trusted while Redis is away.
    pub disconnected_ttl: Duration,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// The file with the key that tokens are signed with; created when it does not exist.
    pub token_key_file: PathBuf,
}

/// What is written to the log, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A level, or directives as `RUST_LOG` takes them.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Whether output also goes to files in the state directory.
    pub files: bool,
    /// A file that would grow beyond this is rotated first; never zero.
    pub file_size: ByteSize,
    /// How many files are kept per stream; at least 1.
    pub file_count: u32,
}

impl Supervisor {
    /// Where the workers keep what they own: the state directory, or `data` in it when they run as a user of their own.
    ///
    /// The state directory also holds the supervisor's socket, locks and logs. Whoever may write to a directory may put
    /// another file in the place of any in it, so workers of another user get one to themselves.
    pub fn workers_dir(&self) -> PathBuf {
        if self.user.is_some() { self.state_dir.join("data") } else { self.state_dir.clone() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let state_dir = PathBuf::from(".bellwether");
        Self {
            supervisor: Supervisor::default(),
            http: Http::default(),
            redis: Redis::default(),
            database: Database { url: default_database(&state_dir) },
            rate_limit: RateLimit::default(),
            cache: Cache::default(),
            auth: Auth { token_key_file: default_token_key(&state_dir) },
            log: Log::default(),
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            workers: Workers::Max,
            listen: vec![ListenAddress::Tcp(([0, 0, 0, 0], 8080).into())],
            admin_listen: ([127, 0, 0, 1], 9090).into(),
            kill_timeout: Duration::from_secs(30),
            ready_timeout: Duration::from_secs(30),
            min_uptime: Duration::from_secs(1),
            canary: Duration::from_secs(2),
            hang_timeout: Duration::from_secs(10),
            max_memory: ByteSize::mebibytes(0),
            max_requests: 0,
            max_age: Duration::ZERO,
            cron: None,
            cpu_affinity: false,
            user: None,
            state_dir: PathBuf::from(".bellwether"),
            processes: Vec::new(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            client_ip_header: "x-forwarded-for".to_owned(),
            expose_worker: false,
            access_log: AccessLog::Off,
            keep_alive: Duration::from_secs(5),
            handler_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_connections_per_ip: 256,
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: RedisUrl::local(),
            cache_url: None,
            prefix: "bw".to_owned(),
            command_timeout: Duration::from_millis(300),
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            enabled: true,
            timeout: Duration::from_millis(25),
            shadow: false,
            ipv6_prefix: 56,
            allow: Vec::new(),
            deny: Vec::new(),
            headers: vec![RateLimitHeaders::Draft10],
            policies: Vec::new(),
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            l1_budget: ByteSize::mebibytes(64),
            ttl: Duration::from_secs(60),
            l1_ttl: Duration::from_secs(30),
            disconnected_ttl: Duration::from_secs(10),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Pretty,
            files: true,
            file_size: ByteSize::megabytes(10),
            file_count: 5,
        }
    }
}

/// SQLite in the workers' directory.
pub(crate) fn default_database(workers_dir: &Path) -> DatabaseUrl {
    DatabaseUrl::sqlite(&workers_dir.join(DATABASE_FILE))
}

/// The token key in the workers' directory.
pub(crate) fn default_token_key(workers_dir: &Path) -> PathBuf {
    workers_dir.join("token.key")
}
