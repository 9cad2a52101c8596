//! The table of all keys: one row says everything about a key that its type does not.

use crate::setting::Setting;
use crate::settings::Settings;

/// One key of the configuration.
pub(crate) struct Key {
    /// `section.name`.
    pub(crate) path: &'static str,
    /// What it is for, in the words of the template and the schema.
    pub(crate) about: &'static str,
    /// Customary environment variables that set it as they are.
    pub(crate) environment: &'static [&'static str],
    /// What the template shows for a key that has no value by default.
    pub(crate) example: Option<&'static str>,
    /// Its place in the settings.
    pub(crate) slot: fn(&mut Settings) -> &mut dyn Setting,
}

impl Key {
    const fn new(path: &'static str, about: &'static str, slot: fn(&mut Settings) -> &mut dyn Setting) -> Self {
        Self { path, about, environment: &[], example: None, slot }
    }

    const fn with_variables(mut self, names: &'static [&'static str]) -> Self {
        self.environment = names;
        self
    }

    const fn with_example(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }

    /// The part before the dot.
    pub(crate) fn section(&self) -> &'static str {
        self.parts().0
    }

    /// The part after the dot.
    pub(crate) fn name(&self) -> &'static str {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').expect("every key of the table has a section")
    }

    /// The environment variable that every key has.
    pub(crate) fn twin(&self) -> String {
        format!("{TWIN_PREFIX}{}", self.path.to_uppercase().replace('.', "__"))
    }
}

/// What the environment twins of all keys begin with.
pub(crate) const TWIN_PREFIX: &str = "BELLWETHER__";

/// The key of the `[[supervisor.process]]` tables.
pub(crate) const PROCESS: &str = "supervisor.process";

/// The key of the `[[rate_limit.policy]]` tables.
pub(crate) const POLICY: &str = "rate_limit.policy";

/// The row of a key.
pub(crate) fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names of all sections, in the order of the table.
pub(crate) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS.iter().map(Key::section).collect();
    sections.dedup();
    sections
}

/// What a section is about, for the template and the schema.
pub(crate) fn about_section(section: &str) -> &'static str {
    match section {
        "supervisor" => "Processes, sockets and files.",
        "http" => "What the public listeners accept and reveal.",
        "redis" => {
            "Redis holds limits, the cache and its invalidation. It may be away: see each crate's page for what happens then."
        }
        "database" => "The database of record.",
        "rate_limit" => "Limits on requests. No policy, no limit.",
        "cache" => "The two-level cache: in each worker, and in Redis.",
        "auth" => "Tokens.",
        _ => "What is written to the log, and how.",
    }
}

pub(crate) const KEYS: &[Key] = &[
    Key::new(
        "supervisor.workers",
        "How many workers: N, \"max\" for one per usable core (the cgroup's share counts), \"-N\" for N fewer than that.",
        |all| &mut all.supervisor.workers,
    )
    .with_variables(&["WEB_CONCURRENCY"]),
    Key::new(
        "supervisor.listen",
        "Where the workers serve: TCP addresses or \"unix:PATH\". PORT and HOST replace it.\n`supervisor up` serves at 127.0.0.1:8080 unless told otherwise.",
        |all| &mut all.supervisor.listen,
    ),
    Key::new("supervisor.admin_listen", "Where metrics are served. Keep it off the Internet.", |all| {
        &mut all.supervisor.admin_listen
    }),
    Key::new("supervisor.kill_timeout", "How long a worker may finish what it is doing before it is killed.", |all| {
        &mut all.supervisor.kill_timeout
    }),
    Key::new("supervisor.ready_timeout", "How long a worker may take to become ready.", |all| {
        &mut all.supervisor.ready_timeout
    }),
    Key::new(
        "supervisor.min_uptime",
        "A program after `--` that reports nothing counts as ready after this time.",
        |all| &mut all.supervisor.min_uptime,
    ),
    Key::new(
        "supervisor.canary",
        "How long the first worker of a new generation has to serve without a crash before a reload goes on; 0s to go on at once.",
        |all| &mut all.supervisor.canary,
    ),
    Key::new(
        "supervisor.hang_timeout",
        "How long a worker that has reported once may be silent before it is killed and replaced.",
        |all| &mut all.supervisor.hang_timeout,
    ),
    Key::new(
        "supervisor.max_memory",
        "A worker whose resident memory is larger is replaced, the successor first; 0 for never.",
        |all| &mut all.supervisor.max_memory,
    ),
    Key::new(
        "supervisor.max_requests",
        "A worker that has answered so many requests, give or take 15 %, is replaced; 0 for never.",
        |all| &mut all.supervisor.max_requests,
    ),
    Key::new(
        "supervisor.max_age",
        "A worker of this age, give or take 15 %, is replaced; 0s for never.",
        |all| &mut all.supervisor.max_age,
    ),
    Key::new(
        "supervisor.cron",
        "When all workers are replaced, one by one: minute, hour, day of month, month, day of week, and a time zone if it is\nnot the system's.",
        |all| &mut all.supervisor.cron,
    )
    .with_example("30 4 * * *"),
    Key::new("supervisor.cpu_affinity", "Whether each worker is bound to one processor.", |all| {
        &mut all.supervisor.cpu_affinity
    }),
    Key::new(
        "supervisor.user",
        "The user that workers and the processes beside them run as; the supervisor's own when absent. Set it here rather than\nby --user, so that `supervisor db` and `supervisor token` find the same files.",
        |all| &mut all.supervisor.user,
    )
    .with_example("www-data"),
    Key::new(
        "supervisor.state_dir",
        "Where the control socket, the private Redis of `up`, logs, SQLite and generated secrets live. With a `user`, SQLite and\nthe token key are in its directory `data`, which alone belongs to that user.",
        |all| &mut all.supervisor.state_dir,
    )
    .with_variables(&["STATE_DIRECTORY"]),
    Key::new(PROCESS, "A kind of process beside the web workers, restarted by the same rules.", |all| {
        &mut all.supervisor.processes
    }),
    Key::new(
        "http.trusted_proxies",
        "Networks whose word on a client's address is taken, such as your load balancer's.",
        |all| &mut all.http.trusted_proxies,
    )
    .with_variables(&["TRUSTED_PROXIES"]),
    Key::new("http.client_ip_header", "The one header in which they give it.", |all| &mut all.http.client_ip_header),
    Key::new("http.expose_worker", "Whether answers carry `x-served-by: w0`. `supervisor up` switches it on.", |all| {
        &mut all.http.expose_worker
    }),
    Key::new("http.access_log", "Which requests are logged one by one: \"off\", \"errors\" or \"all\".", |all| {
        &mut all.http.access_log
    }),
    Key::new("http.keep_alive", "How long an idle connection stays open.", |all| &mut all.http.keep_alive),
    Key::new(
        "http.handler_timeout",
        "How long a handler may take before the client gets 504; what it was writing goes on.",
        |all| &mut all.http.handler_timeout,
    ),
    Key::new(
        "http.max_connections",
        "Connections per worker; beyond, the longest idle one is closed, and with none idle the new one gets 503.",
        |all| &mut all.http.max_connections,
    ),
    Key::new(
        "http.max_connections_per_ip",
        "Connections per client address and worker. Loopback, unix sockets and trusted proxies are exempt.",
        |all| &mut all.http.max_connections_per_ip,
    ),
    Key::new(
        "redis.url",
        "redis://, rediss://, redis+unix://, redis-cluster:// or redis-sentinel://. Do not put a password here: give the URL\nin a file named by REDIS_URL_FILE, or as the credential `redis.url` of a systemd unit.",
        |all| &mut all.redis.url,
    )
    .with_variables(&["REDIS_URL"]),
    Key::new(
        "redis.cache_url",
        "Another server for the cache alone, which may evict; `url` when absent.",
        |all| &mut all.redis.cache_url,
    )
    .with_example("redis://127.0.0.1:6380"),
    Key::new("redis.prefix", "What every key in Redis begins with.", |all| &mut all.redis.prefix),
    Key::new("redis.command_timeout", "How long one command may take.", |all| &mut all.redis.command_timeout),
    Key::new(
        "database.url",
        "sqlite://PATH or postgres://…; by default SQLite in supervisor.state_dir. With a password, as for redis.url:\nDATABASE_URL_FILE, or the credential `database.url`.",
        |all| &mut all.database.url,
    )
    .with_variables(&["DATABASE_URL"]),
    Key::new("rate_limit.enabled", "Whether the policies below are enforced.", |all| &mut all.rate_limit.enabled),
    Key::new(
        "rate_limit.timeout",
        "How long a request waits for Redis before its policy's `on_outage` decides.",
        |all| &mut all.rate_limit.timeout,
    ),
    Key::new("rate_limit.shadow", "Whether the policies below only count and report.", |all| {
        &mut all.rate_limit.shadow
    }),
    Key::new(
        "rate_limit.ipv6_prefix",
        "How much of an IPv6 address makes a client: 32 to 64 bits, or 128 for each address of its own.",
        |all| &mut all.rate_limit.ipv6_prefix,
    ),
    Key::new("rate_limit.allow", "Networks that are never limited.", |all| &mut all.rate_limit.allow),
    Key::new("rate_limit.deny", "Networks that are refused; what is allowed above is not.", |all| {
        &mut all.rate_limit.deny
    }),
    Key::new("rate_limit.headers", "Which headers tell clients about their limits; [] for none.", |all| {
        &mut all.rate_limit.headers
    }),
    Key::new(POLICY, "One limit. All policies that match a request apply to it.", |all| {
        &mut all.rate_limit.policies
    }),
    Key::new("cache.l1_budget", "Memory for cached values on this host, divided over the workers.", |all| {
        &mut all.cache.l1_budget
    }),
    Key::new("cache.ttl", "How long a value stays in Redis.", |all| &mut all.cache.ttl),
    Key::new("cache.l1_ttl", "How long a value stays in a worker.", |all| &mut all.cache.l1_ttl),
    Key::new(
        "cache.disconnected_ttl",
        "How long a worker's own values are trusted while Redis is wholly away.",
        |all| &mut all.cache.disconnected_ttl,
    ),
    Key::new(
        "auth.token_key_file",
        "The file with the key that tokens are signed with; created when it does not exist. The credential\n`auth.token_key` of a systemd unit takes its place.",
        |all| &mut all.auth.token_key_file,
    ),
    Key::new("log.level", "A level, or directives such as \"info,api=debug\". RUST_LOG wins.", |all| &mut all.log.level)
        .with_variables(&["RUST_LOG"]),
    Key::new("log.format", "\"pretty\" for people, \"json\" for machines.", |all| &mut all.log.format),
    Key::new(
        "log.files",
        "Whether what workers, processes and supervisor write also goes to files, in `logs` in the state directory.\nNever under systemd's journal, which keeps it already.",
        |all| &mut all.log.files,
    ),
    Key::new("log.file_size", "A file that would grow beyond this is rotated first.", |all| &mut all.log.file_size),
    Key::new("log.file_count", "How many files are kept per worker or process, the one being written included.", |all| {
        &mut all.log.file_count
    }),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_path_is_unique_and_its_section_stands_together() {
        let paths: HashSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        let sections = sections();
        assert_eq!(sections.iter().collect::<HashSet<_>>().len(), sections.len());
    }

    #[test]
    fn every_slot_is_the_place_its_path_names() {
        // Distinct places in memory show that no row points at another row's value.
        let mut settings = Settings::default();
        let places: HashSet<_> =
            KEYS.iter().map(|key| std::ptr::from_mut((key.slot)(&mut settings)).cast::<u8>() as usize).collect();
        assert_eq!(places.len(), KEYS.len());
    }
}
