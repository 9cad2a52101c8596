//! A server on its own thread, an application that misbehaves on request, and clients that speak raw bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_web::dev::Service;
use actix_web::{App, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use edge::{Adoption, Config, DrainKind, Limits, Listener, Phase, Problem, Report, Server};
use tokio::sync::watch;

/// How long a test waits for what has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A configuration whose deadlines a test can wait for.
pub(crate) fn quick() -> Config {
    Config {
        keep_alive: Duration::from_millis(400),
        handler_timeout: Duration::from_millis(400),
        drain_timeout: Duration::from_secs(10),
        limits: Limits {
            tick: Duration::from_millis(10),
            head: Duration::from_millis(300),
            body: Duration::from_millis(300),
            write_stall: Duration::from_millis(300),
            linger: Duration::from_millis(200),
            stop_silence: Duration::from_millis(200),
            descriptor_pause: Duration::from_millis(20),
            exempt_loopback: true,
        },
        ..Config::default()
    }
}

/// A configuration whose deadlines no test reaches.
pub(crate) fn patient() -> Config {
    let hour = Duration::from_secs(3600);
    Config {
        keep_alive: hour,
        handler_timeout: hour,
        limits: Limits { head: hour, body: hour, write_stall: hour, ..quick().limits },
        ..quick()
    }
}

/// What holds handlers up until the test lets them go.
#[derive(Default)]
pub(crate) struct Gate {
    open: AtomicBool,
    /// How many handlers have come so far.
    pub(crate) arrived: AtomicUsize,
    /// How many writes of `/write` have ended.
    pub(crate) written: AtomicUsize,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }

    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }

    async fn pass(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        while !self.open.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A server under test; dropping it stops it.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: telemetry::Registry,
    pub(crate) gate: Arc<Gate>,
    pub(crate) adoption: Adoption,
    phase: watch::Sender<Phase>,
    thread: Option<JoinHandle<Report>>,
}

impl TestServer {
    pub(crate) fn start(config: Config) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Self::start_on(Listener::Tcp(listener), address, config)
    }

    pub(crate) fn start_on(listener: Listener, address: SocketAddr, config: Config) -> Self {
        let metrics = telemetry::Registry::new();
        let gate = Arc::new(Gate::default());
        let (phase, phases) = watch::channel(Phase::Serve);
        let (tell_adoption, adoption) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let (metrics, gate) = (metrics.clone(), Arc::clone(&gate));
            move || {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let runtime = builder.enable_all().build_local(Default::default()).unwrap();
                let server = Server::new(config, &metrics).unwrap();
                tell_adoption.send(server.adoption()).unwrap();
                runtime.block_on(server.serve(vec![listener], application(gate), phases)).unwrap()
            }
        });
        Self { address, metrics, gate, adoption: adoption.recv().unwrap(), phase, thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn drain(&self, kind: DrainKind) {
        self.phase.send_replace(Phase::Drain(kind));
    }

    /// Waits for the end of a drain.
    pub(crate) fn report(mut self) -> Report {
        self.thread.take().unwrap().join().unwrap()
    }

    /// The value of one line of the metrics, or 0.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.metrics.snapshot().render();
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0.0)
    }

    /// How often connections were refused or closed for this reason.
    pub(crate) fn closed(&self, reason: &str) -> f64 {
        self.metric(&format!("bellwether_http_closed_total{{reason=\"{reason}\"}}"))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.drain(DrainKind::Stop);
    }
}

fn application(
    gate: Arc<Gate>,
) -> App<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let upload = web::resource("/upload")
        .wrap_fn(|request, service| {
            edge::set_body_deadline(request.request(), PATIENCE);
            service.call(request)
        })
        .route(web::post().to(length));
    App::new()
        .app_data(web::Data::from(gate))
        .app_data(web::PayloadConfig::new(8 << 20))
        .route("/", web::get().to(async || "hello"))
        .route("/client", web::get().to(async |request: HttpRequest| edge::client_address(&request).to_string()))
        .route("/large", web::get().to(async || vec![b'x'; 1 << 20]))
        .route("/panic", web::get().to(panics))
        .route("/never", web::to(async || std::future::pending::<&str>().await))
        .route("/slow", web::get().to(slow))
        .route("/block", web::get().to(block))
        .route("/length", web::post().to(length))
        .route("/ignore", web::post().to(async || "ignored"))
        .route("/write", web::post().to(write))
        .route("/problem", web::get().to(problem))
        .service(upload)
}

async fn panics() -> HttpResponse {
    panic!("on purpose");
}

async fn slow(gate: web::Data<Gate>) -> &'static str {
    gate.pass().await;
    "slow"
}

/// The one way to keep a loop with one thread from accepting.
async fn block(gate: web::Data<Gate>) -> &'static str {
    gate.arrived.fetch_add(1, Ordering::SeqCst);
    while !gate.open.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(2));
    }
    "blocked"
}

async fn length(body: Bytes) -> String {
    body.len().to_string()
}

async fn problem() -> HttpResponse {
    Problem::new(actix_web::http::StatusCode::CONFLICT).detail("busy").response()
}

async fn write(gate: web::Data<Gate>) -> &'static str {
    edge::detach(async move {
        gate.pass().await;
        gate.written.fetch_add(1, Ordering::SeqCst);
        "written"
    })
    .await
}

/// One answer, as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower-case, as sent.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }

    /// Asserts that this is a problem of the given status, with the ids that every answer has.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["trace_id"].as_str().map(str::len), Some(32), "{body}");
    }
}

/// A connection that says exactly what it is told.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Sends as much as the other side takes.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        self.answer()
    }

    /// The next answer; panics when the connection ends before one.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("the connection ended without an answer")
    }

    /// The next answer, or `None` if the connection ends first.
    #[track_caller]
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more() {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..head_end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if status == 100 {
            return Some(answer);
        }
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        while self.buffer.len() < length {
            if !self.read_more() {
                return None;
            }
        }
        answer.body = self.buffer.drain(..length).collect();
        Some(answer)
    }

    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came within {PATIENCE:?}"),
            Err(_) => false,
        }
    }

    /// Reads until the other side closes, and tells how long that took.
    #[track_caller]
    pub(crate) fn wait_for_close(&mut self) -> Duration {
        let began = Instant::now();
        while self.read_more() {}
        began.elapsed()
    }

    /// Whether the connection still answers.
    pub(crate) fn works(&mut self) -> bool {
        self.try_send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            && self.try_answer().is_some_and(|answer| answer.status == 200)
    }

    pub(crate) fn hang_up(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
