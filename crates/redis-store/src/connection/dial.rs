//! Building a fred client with our defaults, and one attempt to connect it.

use std::{pin::pin, sync::Arc, time::Duration};

use fred::{
    clients::Client,
    interfaces::ClientLike,
    rustls, rustls_native_certs,
    types::{
        ConnectHandle, RespVersion,
        config::{
            ClusterDiscoveryPolicy, Config as ClientConfig, ConnectionConfig, PerformanceConfig, ReconnectError,
            Server, ServerConfig, TcpConfig, TlsConfig, TlsConnector, UnresponsiveConfig,
        },
    },
};
use futures_util::poll;
use socket2::TcpKeepalive;

use crate::{
    config::Config,
    url::{Host, ServerAddress, Url},
};

/// An attempt that has not ended by then has failed. Longer than one round trip needs, because a sentinel or a
/// cluster takes several.
const ATTEMPT: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(1);
/// Commands waiting to be written; beyond it they are refused.
const COMMAND_BUFFER: usize = 4096;
/// Messages waiting for a subscriber; beyond it fred drops the oldest and says so. fred sets memory aside for each of
/// its kinds of event, so that only subscribers pay for it.
const MESSAGE_BUFFER: usize = 1024;
const EVENT_BUFFER: usize = 16;
/// fred's own timer runs out long after ours, which alone decides that a reply is late: fred's takes a busy loop for a
/// dead server.
const BACKSTOP: Duration = Duration::from_secs(2);

/// Connects to one Redis again and again.
pub(crate) struct Dialer {
    url: Url,
    client: ClientConfig,
    performance: PerformanceConfig,
    connection: ConnectionConfig,
}

impl Dialer {
    /// For connections that carry commands.
    pub(crate) fn for_commands(config: &Config) -> Self {
        Self::new(config, EVENT_BUFFER)
    }

    /// For connections that carry messages.
    pub(crate) fn for_messages(config: &Config) -> Self {
        Self::new(config, MESSAGE_BUFFER)
    }

    fn new(config: &Config, event_buffer: usize) -> Self {
        Self {
            url: config.url.clone(),
            client: client_config(&config.url),
            performance: PerformanceConfig {
                default_command_timeout: config.command_timeout + BACKSTOP,
                broadcast_channel_capacity: event_buffer,
                ..PerformanceConfig::default()
            },
            connection: connection_config(),
        }
    }

    /// The address without credentials.
    pub(crate) fn address(&self) -> &Url {
        &self.url
    }

    /// Connects once, or says why not.
    pub(crate) async fn dial(&self) -> Result<Session, String> {
        let client =
            Client::new(self.client.clone(), Some(self.performance.clone()), Some(self.connection.clone()), None);
        let waiting = client.clone();
        let mut connected = pin!(waiting.wait_for_connect());
        // The first poll registers the listener, which must be there before the connection's task can call it.
        let _ = poll!(&mut connected);
        let session = Session { task: client.connect(), client };
        match tokio::time::timeout(ATTEMPT, connected).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("timed out".to_owned()),
        }
    }
}

/// A client that is connected, until its task ends.
pub(crate) struct Session {
    client: Client,
    task: ConnectHandle,
}

impl Session {
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits until the connection has ended, and says how.
    pub(crate) async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Ok(())) => "closed".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Session {
    /// The task holds the client, so nothing else would end it.
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn client_config(url: &Url) -> ClientConfig {
    ClientConfig {
        fail_fast: true,
        username: url.credentials.username.clone(),
        password: url.credentials.password.clone(),
        server: server_config(&url.server),
        // So that a subscriber's connection can be asked whether it is alive.
        version: RespVersion::RESP3,
        database: url.database,
        tls: url.tls.then(tls_config),
        ..ClientConfig::default()
    }
}

fn server_config(address: &ServerAddress) -> ServerConfig {
    let server = |host: &Host| Server::new(host.name.clone(), host.port);
    match address {
        ServerAddress::Single(host) => ServerConfig::Centralized { server: server(host) },
        ServerAddress::Unix(path) => ServerConfig::Unix { path: path.clone() },
        ServerAddress::Cluster(hosts) => ServerConfig::Clustered {
            hosts: hosts.iter().map(server).collect(),
            policy: ClusterDiscoveryPolicy::ConfigEndpoint,
        },
        ServerAddress::Sentinel { hosts, service, credentials } => ServerConfig::Sentinel {
            hosts: hosts.iter().map(server).collect(),
            service_name: service.clone(),
            username: credentials.username.clone(),
            password: credentials.password.clone(),
        },
    }
}

fn connection_config() -> ConnectionConfig {
    ConnectionConfig {
        connection_timeout: CONNECT,
        internal_command_timeout: CONNECT,
        // More would send a script again whose reply was lost, and count one request twice.
        max_command_attempts: 1,
        max_command_buffer_len: COMMAND_BUFFER,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(Duration::from_secs(2)),
            interval: Duration::from_millis(500),
        },
        reconnect_errors: vec![
            ReconnectError::ReadOnly,
            ReconnectError::Loading,
            ReconnectError::ClusterDown,
            ReconnectError::MasterDown,
        ],
        tcp: TcpConfig {
            nodelay: Some(true),
            keepalive: Some(
                TcpKeepalive::new()
                    .with_time(Duration::from_secs(15))
                    .with_interval(Duration::from_secs(5))
                    .with_retries(3),
            ),
            user_timeout: Some(Duration::from_secs(5)),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    }
}

/// TLS with the system's roots. The provider is named because the process may link more than one, and rustls then
/// refuses to choose.
fn tls_config() -> TlsConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc has the cipher suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(config).into()
}
