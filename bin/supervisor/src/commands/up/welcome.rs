//! What `up` prints when everything is ready.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use supervise::status::Status;

/// What there is to look at, beside the workers.
#[derive(Debug)]
pub(crate) struct Demo {
    /// A bearer token.
    pub(crate) token: String,
    /// The path of a product, if there is any.
    pub(crate) product: Option<String>,
    /// The address of the admin listener.
    pub(crate) admin: Option<String>,
    pub(crate) state_dir: PathBuf,
    pub(crate) control_socket: PathBuf,
}

/// The text, with a line to type that returns a product.
pub(crate) fn text(status: &Status, demo: &Demo) -> String {
    let base = status.supervisor.listen.first().map(|address| Base::of(address)).unwrap_or_default();
    let pids: Vec<_> = status.workers.iter().filter_map(|worker| worker.pid).map(|pid| pid.to_string()).collect();
    let mut processes = format!("supervisor {}, workers {}", status.supervisor.pid, pids.join(" "));
    for process in &status.processes {
        let _ = write!(processes, ", {} {}", process.name, process.pid.unwrap_or_default());
    }
    let mut text = format!("\nBellwether {} is ready.\n\n", status.supervisor.version);
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    row("API", &base.url("/api/v1/products"));
    row("Health", &base.url("/health"));
    if let Some(admin) = &demo.admin {
        row("Metrics", &Base::of(admin).url("/metrics"));
    }
    row("PIDs", &processes);
    row("State", &demo.state_dir.display().to_string());
    let _ = write!(text, "\nToken (role admin, 24 hours):\n  {}\n", demo.token);
    if let Some(product) = &demo.product {
        let _ = write!(text, "\nTry:\n  curl {}\n", base.curl(product));
    }
    let socket = demo.control_socket.display();
    let _ = write!(
        text,
        "\nLook:  supervisor --socket {socket} status\nStop:  Ctrl-C, or supervisor --socket {socket} stop\n\n"
    );
    text
}

/// What comes before a path.
#[derive(Debug, Default)]
struct Base {
    origin: String,
    /// Curl needs to be told of a unix socket.
    socket: Option<String>,
}

impl Base {
    /// An address that listens on everything is reached on this machine's own.
    fn of(address: &str) -> Self {
        if let Some(path) = address.strip_prefix("unix:") {
            return Self { origin: "http://localhost".to_owned(), socket: Some(path.to_owned()) };
        }
        let reachable = match address.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_unspecified() && address.is_ipv4() => {
                format!("127.0.0.1:{}", address.port())
            }
            Ok(address) if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
            _ => address.to_owned(),
        };
        Self { origin: format!("http://{reachable}"), socket: None }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    fn curl(&self, path: &str) -> String {
        let socket = self.socket.as_ref().map(|socket| format!("--unix-socket {socket} ")).unwrap_or_default();
        format!("{socket}{}", self.url(path))
    }
}

#[cfg(test)]
mod tests {
    use supervise::status::{
        HostStatus, ProcessStatus, SCHEMA, State, SupervisorState, SupervisorStatus, WorkerStatus,
    };

    use super::*;

    fn worker(id: u32, pid: i32) -> WorkerStatus {
        WorkerStatus {
            id,
            pid: Some(pid),
            generation: 1,
            state: State::Ready,
            restarts: 0,
            uptime_seconds: None,
            cpu_percent: None,
            rss_bytes: None,
            connections: None,
            requests_total: None,
            requests_per_second: None,
            p99_seconds: None,
            loop_lag_seconds: None,
            last_exit: None,
            reason: None,
        }
    }

    #[test]
    fn the_text_has_urls_token_pids_and_a_line_to_type() {
        let status = Status {
            schema: SCHEMA.to_owned(),
            supervisor: SupervisorStatus {
                pid: 10,
                version: "0.1.0".to_owned(),
                uptime_seconds: 1.0,
                generation: 1,
                state: SupervisorState::Running,
                listen: vec!["0.0.0.0:8080".to_owned()],
                workers_wanted: 2,
            },
            workers: vec![worker(0, 12), worker(1, 13)],
            processes: vec![ProcessStatus {
                name: "redis".to_owned(),
                pid: Some(11),
                state: State::Ready,
                restarts: 0,
                uptime_seconds: None,
            }],
            host: HostStatus::default(),
            dependencies: Vec::new(),
        };
        let demo = Demo {
            token: "eyJ.a.b".to_owned(),
            product: Some("/api/v1/products/red-chair".to_owned()),
            admin: Some("127.0.0.1:9090".to_owned()),
            state_dir: PathBuf::from("/tmp/state"),
            control_socket: PathBuf::from("/tmp/state/supervisor.sock"),
        };
        let expected = "
Bellwether 0.1.0 is ready.

  API       http://127.0.0.1:8080/api/v1/products
  Health    http://127.0.0.1:8080/health
  Metrics   http://127.0.0.1:9090/metrics
  PIDs      supervisor 10, workers 12 13, redis 11
  State     /tmp/state

Token (role admin, 24 hours):
  eyJ.a.b

Try:
  curl http://127.0.0.1:8080/api/v1/products/red-chair

Look:  supervisor --socket /tmp/state/supervisor.sock status
Stop:  Ctrl-C, or supervisor --socket /tmp/state/supervisor.sock stop

";
        assert_eq!(text(&status, &demo), expected);
    }

    #[test]
    fn addresses_become_what_a_client_can_use() {
        let cases = [
            ("127.0.0.1:80", "http://127.0.0.1:80/x"),
            ("0.0.0.0:80", "http://127.0.0.1:80/x"),
            ("[::]:80", "http://[::1]:80/x"),
            ("unix:/run/a.sock", "--unix-socket /run/a.sock http://localhost/x"),
        ];
        for (address, expected) in cases {
            assert_eq!(Base::of(address).curl("/x"), expected);
        }
    }
}
