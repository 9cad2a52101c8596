//! The text of the unit.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where systemd puts what the service keeps.
pub(super) const STATE_DIRECTORY: &str = "/var/lib/bellwether";
/// Where systemd puts the control socket.
pub(super) const RUNTIME_DIRECTORY: &str = "/run/bellwether";

/// The first systemd that knows `Type=notify-reload`.
const KNOWS_NOTIFY_RELOAD: u32 = 253;

/// What a stop needs besides its drain, and a start besides its workers.
const MARGIN: Duration = Duration::from_secs(10);
const START_MARGIN: Duration = Duration::from_secs(60);

/// Descriptors beside a process's connections.
const DESCRIPTORS_BESIDE: u32 = 1_024;
const LEAST_DESCRIPTORS: u32 = 65_536;

/// What the unit depends on.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) executable: PathBuf,
    pub(super) config: Option<PathBuf>,
    /// `key=value` of each `--set`.
    pub(super) set: Vec<String>,
    /// Which systemd it is for; any when absent.
    pub(super) systemd: Option<u32>,
    /// Whether the supervisor starts its workers as another user.
    pub(super) switches_user: bool,
    /// Whether it listens on a port below 1024.
    pub(super) binds_privileged_port: bool,
    /// Whether a proxy has to reach a socket in the runtime directory.
    pub(super) shares_sockets: bool,
    /// Directories outside of the service's own.
    pub(super) writable: Vec<PathBuf>,
    pub(super) ready_timeout: Duration,
    pub(super) kill_timeout: Duration,
    /// Per worker.
    pub(super) connections: u32,
}

const HEAD: &str = "\
# A unit for systemd, printed by `supervisor service print`. To install it:
#
#   supervisor service print > /etc/systemd/system/bellwether.service
#   systemctl daemon-reload && systemctl enable --now bellwether
#
# Commands find the running service by its socket: supervisor --socket /run/bellwether/supervisor.sock status
# Changes of your own: systemctl edit bellwether

[Unit]
Description=Bellwether
Wants=network-online.target
After=network-online.target redis-server.service valkey-server.service postgresql.service
";

const CREDENTIALS: &str = "
# Secrets, from files that only root may read. They win over the configuration file.
#LoadCredential=redis.url:/etc/bellwether/redis.url
#LoadCredential=database.url:/etc/bellwether/database.url
#LoadCredential=auth.token_key:/etc/bellwether/token.key
";

const HARDENING: &str = "
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
";

const TAIL: &str = "
[Install]
WantedBy=multi-user.target
";

impl fmt::Display for Unit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(HEAD)?;
        self.process(formatter)?;
        self.directories(formatter)?;
        formatter.write_str(CREDENTIALS)?;
        formatter.write_str(HARDENING)?;
        self.privileges(formatter)?;
        formatter.write_str(TAIL)
    }
}

impl Unit {
    fn process(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let knows_notify_reload = self.systemd.is_some_and(|version| version >= KNOWS_NOTIFY_RELOAD);
        writeln!(formatter, "\n[Service]")?;
        writeln!(formatter, "Type={}", if knows_notify_reload { "notify-reload" } else { "notify" })?;
        writeln!(formatter, "NotifyAccess=main")?;
        writeln!(formatter, "ExecStart={}", self.command())?;
        if !knows_notify_reload {
            writeln!(formatter, "ExecReload=/bin/kill -HUP $MAINPID")?;
        }
        writeln!(formatter, "WatchdogSec=30s")?;
        writeln!(formatter, "Restart=on-failure")?;
        writeln!(formatter, "RestartSec=2s")?;
        writeln!(formatter, "# An invalid configuration does not become valid by another start.")?;
        writeln!(formatter, "RestartPreventExitStatus=78")?;
        writeln!(formatter, "# The supervisor replaces a worker that the kernel killed for its memory.")?;
        writeln!(formatter, "OOMPolicy=continue")?;
        writeln!(formatter, "KillMode=mixed")?;
        writeln!(formatter, "TimeoutStartSec={}", seconds(self.ready_timeout + START_MARGIN))?;
        writeln!(formatter, "# supervisor.kill_timeout and a little: keep it longer when you raise that.")?;
        writeln!(formatter, "TimeoutStopSec={}", seconds(self.kill_timeout + MARGIN))?;
        writeln!(formatter, "FileDescriptorStoreMax=0")?;
        let descriptors = self.connections.saturating_add(DESCRIPTORS_BESIDE).max(LEAST_DESCRIPTORS);
        writeln!(formatter, "LimitNOFILE={descriptors}")
    }

    fn command(&self) -> String {
        let mut arguments = vec!["start".to_owned()];
        if let Some(config) = &self.config {
            arguments.extend(["--config".to_owned(), path_word(config)]);
        }
        arguments.extend(self.set.iter().flat_map(|assignment| ["--set".to_owned(), word(assignment)]));
        // The name of the program is not looked through for variables.
        format!("{} {}", path_word(&self.executable), arguments.join(" ").replace('$', "$$"))
    }

    fn directories(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\nStateDirectory=bellwether")?;
        writeln!(formatter, "StateDirectoryMode=0700")?;
        writeln!(formatter, "WorkingDirectory=%S/bellwether")?;
        writeln!(formatter, "RuntimeDirectory=bellwether")?;
        writeln!(formatter, "RuntimeDirectoryMode={}", if self.shares_sockets { "0755" } else { "0700" })?;
        writeln!(formatter, "ConfigurationDirectory=bellwether")?;
        writeln!(formatter, "UMask=0077")?;
        for directory in &self.writable {
            writeln!(formatter, "ReadWritePaths=-{}", path_word(directory))?;
        }
        Ok(())
    }

    /// Who the service is and what it may do. Of the groups that are taken away, limits may be raised all the same and workers bound
    /// to processors.
    fn privileges(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "SystemCallFilter=~@privileged @resources")?;
        let allowed = if self.switches_user { "@setuid @chown " } else { "" };
        writeln!(formatter, "SystemCallFilter={allowed}prlimit64 setrlimit sched_setaffinity\n")?;
        let mut capabilities = Vec::new();
        if self.switches_user {
            writeln!(formatter, "# Root without its powers: the supervisor starts the workers as supervisor.user.")?;
            writeln!(formatter, "User=root")?;
            capabilities.extend(["CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_KILL"]);
        } else {
            writeln!(
                formatter,
                "# A user that exists while the service runs; systemd hands it the directories above at each start."
            )?;
            writeln!(formatter, "DynamicUser=yes")?;
            writeln!(formatter, "ProtectProc=invisible")?;
        }
        if self.binds_privileged_port {
            capabilities.push("CAP_NET_BIND_SERVICE");
        }
        writeln!(formatter, "CapabilityBoundingSet={}", capabilities.join(" "))?;
        if capabilities.is_empty() {
            // Capabilities within a user namespace are none outside of it.
            writeln!(formatter, "PrivateUsers=yes")
        } else if self.switches_user {
            Ok(())
        } else {
            writeln!(formatter, "AmbientCapabilities=CAP_NET_BIND_SERVICE")
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

fn path_word(path: &Path) -> String {
    word(&path.to_string_lossy())
}

/// One word as systemd reads it: `%` begins a specifier, and quotes group.
fn word(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '%' => escaped.push_str("%%"),
            '"' | '\\' => escaped.extend(['\\', character]),
            other => escaped.push(other),
        }
    }
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-=:,@%$+".contains(character);
    if !escaped.is_empty() && escaped.chars().all(is_plain) { escaped } else { format!("\"{escaped}\"") }
}
