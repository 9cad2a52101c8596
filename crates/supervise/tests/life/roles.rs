//! What this binary is when a test starts it: a supervisor, one of its workers, or an auxiliary process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::SIGTERM;
use supervise::frame::{Decoder, DrainKind, FromWorker, Statistics, ToWorker, encode, greeting};
use supervise::worker_side::{Inherited, set_process_name};
use supervise::{AuxiliaryProcess, Handover, Hooks, LogFiles, Program, Spec, Supervisor};

/// Runs a supervisor as the words say, e.g. `directory=/tmp/x workers=2 kill_timeout_ms=500`.
pub(crate) fn supervisor(words: &[String]) -> u8 {
    let word = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let milliseconds = |name: &str| word(name).map(|ms| Duration::from_millis(ms.parse().unwrap()));
    let directory = PathBuf::from(word("directory").unwrap());
    let own = std::env::current_exe().unwrap();
    let executable = word("executable").map_or(own.clone(), PathBuf::from);
    let args = vec!["role-worker".into(), directory.clone().into()];
    let program = match word("foreign") {
        Some(script) => Program::Foreign { program: "sh".into(), args: vec!["-c".into(), script.into()] },
        None => Program::Own { executable, args },
    };
    let control = word("control").map_or(directory.join("supervisor.sock"), PathBuf::from);
    let mut spec = Spec::new(program, control);
    spec.workers = word("workers").map_or(2, |workers| workers.parse().unwrap());
    spec.listen = vec![word("listen").unwrap_or("127.0.0.1:0").parse().unwrap()];
    spec.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    spec.settings = b"the settings".to_vec();
    spec.user = word("user").map(str::to_owned);
    spec.kill_timeout = milliseconds("kill_timeout_ms").unwrap_or(Duration::from_secs(5));
    spec.ready_timeout = milliseconds("ready_timeout_ms").unwrap_or(Duration::from_secs(10));
    spec.canary = milliseconds("canary_ms").unwrap_or(Duration::from_millis(200));
    spec.hang_timeout = milliseconds("hang_timeout_ms").unwrap_or(Duration::from_secs(10));
    spec.recycling.max_memory = word("max_memory").map(|bytes| bytes.parse().unwrap());
    spec.recycling.max_age = milliseconds("max_age_ms");
    spec.recycling.schedule = word("schedule").map(|text| text.parse().unwrap());
    spec.cpu_affinity = word("cpu_affinity").is_some();
    spec.min_uptime = milliseconds("min_uptime_ms").unwrap_or(Duration::from_secs(1));
    spec.log_json = word("log_json").is_some();
    spec.log_files = word("log_file_bytes").map(|max_bytes| LogFiles {
        directory: directory.join("logs"),
        max_bytes: max_bytes.parse().unwrap(),
        count: word("log_file_count").map_or(1000, |count| count.parse().unwrap()),
    });
    if let Some(name) = word("process") {
        let (name, program) = (name.to_owned(), own.into());
        let args = vec!["role-process".into()];
        spec.processes.push(AuxiliaryProcess { name, program, args, env: Vec::new(), notifies: true });
    }
    let again = spec.clone();
    let hooks = Hooks {
        on_ready: Box::new(|status| format!("READY {}\n", status.supervisor.listen[0])),
        respec: Box::new(move |binary| respec(&directory, &again, binary)),
    };
    let outcome = match Handover::from_environment() {
        Ok(None) => Supervisor::bind(spec).and_then(|supervisor| supervisor.run(hooks)),
        Ok(Some(handover)) => match handover.resume() {
            Ok(Some(resumed)) => resumed.run("the next release", hooks),
            Ok(None) => return 0,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    match outcome {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    }
}

/// What a reload finds: the same, but for what a file `reload` in `directory` says, as `workers=3 listen=127.0.0.1:0`.
fn respec(directory: &Path, before: &Spec, binary: Option<&Path>) -> Result<Spec, String> {
    let mut spec = before.clone();
    let text = fs::read_to_string(directory.join("reload")).unwrap_or_default();
    for word in text.split_whitespace() {
        match word.split_once('=').ok_or_else(|| format!("reload:1: {word} is no assignment"))? {
            ("workers", count) => spec.workers = count.parse().unwrap(),
            ("listen", address) => spec.listen.push(address.parse().unwrap()),
            ("process", name) => spec.processes.push(AuxiliaryProcess {
                name: name.to_owned(),
                program: "true".into(),
                args: Vec::new(),
                env: Vec::new(),
                notifies: false,
            }),
            ("ready_timeout_ms", ms) => spec.ready_timeout = Duration::from_millis(ms.parse().unwrap()),
            (name, _) => return Err(format!("reload:1: there is no key {name}")),
        }
    }
    if let (Some(binary), Program::Own { executable, .. }) = (binary, &mut spec.program) {
        *executable = binary.to_owned();
    }
    Ok(spec)
}

/// Serves until it is told to drain, unless a file `mode` or `mode-<slot>` in `directory` says otherwise.
pub(crate) fn worker(directory: &str) -> i32 {
    let term = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&term)).unwrap();
    let inherited = Inherited::from_environment().unwrap().expect("started by a supervisor");
    assert!(Inherited::from_environment().unwrap().is_none(), "the inheritance was given twice");
    inherited.exit_when_orphaned().unwrap();
    set_process_name(&format!("test-w{}", inherited.worker_id)).unwrap();
    let mode = |file: &str| fs::read_to_string(Path::new(directory).join(file)).unwrap_or_default();
    let modes = mode("mode") + &mode(&format!("mode-{}", inherited.worker_id));
    println!("settings={} modes={modes}", settings());
    for mode in modes.split_whitespace() {
        match mode {
            lines if lines.starts_with("count-") => count(lines["count-".len()..].parse().unwrap()),
            "never-ready" => wait_for_ever(),
            "long-line" => println!("{}", "x".repeat(40_000)),
            code if code.starts_with("exit-") => return code["exit-".len()..].parse().unwrap(),
            _ => {}
        }
    }
    let mut channel = UnixStream::from(inherited.channel.as_ref().unwrap().try_clone().unwrap());
    channel.write_all(&greeting()).unwrap();
    channel.write_all(&encode(&FromWorker::Statistics(STATISTICS))).unwrap();
    inherited.notify("READY=1\nSTATUS=serving").unwrap();
    if modes.contains("chatter") {
        thread::spawn(|| {
            loop {
                println!("{}", "chatter ".repeat(100));
            }
        });
    }
    if modes.contains("leak") {
        thread::spawn(leak);
    }
    if modes.contains("orphans") {
        leave_orphans();
    }
    if modes.contains("flood") {
        flood(&inherited, &mut channel, &term);
        return 0;
    }
    if modes.contains("ignore-term") {
        wait_for_ever();
    }
    serve(inherited, channel, &term)
}

/// What every worker tells of itself.
const STATISTICS: Statistics = Statistics {
    connections: 3,
    requests_total: 7,
    requests_per_second: 0.0,
    p99_seconds: Some(0.25),
    loop_lag_seconds: 0.0,
};

/// A thousand processes whose parent has ended, each with another exit code.
fn leave_orphans() {
    let script = "i=0; while [ $i -lt 1000 ]; do (exec sh -c \"exit $((i % 256))\" &) ; i=$((i + 1)); done";
    std::process::Command::new("sh").args(["-c", script]).status().unwrap();
    println!("all orphans were left");
}

/// 80 MiB more every second.
fn leak() {
    let mut leaked = Vec::new();
    loop {
        leaked.push(vec![1_u8; 4 << 20]);
        thread::sleep(Duration::from_millis(50));
    }
}

/// Talks without end and reads nothing, until it is told to end.
fn flood(inherited: &Inherited, channel: &mut UnixStream, term: &AtomicBool) {
    let mut frames = Vec::new();
    for request in 0..2_000 {
        frames.extend(encode(&FromWorker::MetricsWanted { request }));
        frames.extend(encode(&FromWorker::Statistics(STATISTICS)));
        frames.extend(encode(&FromWorker::Drained { cut: request % 2 }));
    }
    channel.set_nonblocking(false).unwrap();
    while !term.load(Ordering::SeqCst) && channel.write_all(&frames).is_ok() {
        let _ = inherited.notify("STATUS=flooding");
    }
}

/// Writes numbered lines to stdout, every tenth to stderr, too.
fn count(lines: usize) {
    for number in 0..lines {
        println!("number {number} {}", "x".repeat(number % 150));
        if number % 10 == 0 {
            eprintln!("number {number}");
        }
    }
}

fn wait_for_ever() -> ! {
    loop {
        thread::park();
    }
}

fn settings() -> String {
    let descriptor = std::env::var("BELLWETHER_SETTINGS_FD").unwrap();
    let mut text = String::new();
    File::open(format!("/proc/self/fd/{descriptor}")).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Answers `<milliseconds>\n` after that time with who it is.
fn serve(inherited: Inherited, mut channel: UnixStream, term: &AtomicBool) -> i32 {
    let listener = TcpListener::from(inherited.listeners.into_iter().next().unwrap().descriptor);
    let id = inherited.worker_id;
    let in_flight = Arc::new(AtomicU32::new(0));
    let mut decoder = Decoder::<ToWorker>::new();
    let mut next_beat = Instant::now();
    let (mut told_to_drain, mut kind) = (false, DrainKind::Stop);
    while !(told_to_drain && (kind == DrainKind::Reload || term.load(Ordering::SeqCst))) {
        let flags = PollFlags::POLLIN;
        let mut watched = [PollFd::new(listener.as_fd(), flags), PollFd::new(channel.as_fd(), flags)];
        let _ = poll(&mut watched, PollTimeout::from(20_u8));
        if Instant::now() >= next_beat {
            next_beat = Instant::now() + Duration::from_millis(200);
            let _ = channel.write_all(&encode(&FromWorker::Statistics(STATISTICS)));
        }
        accept_all(&listener, id, &in_flight);
        let mut bytes = [0; 1000];
        match channel.read(&mut bytes) {
            Ok(0) => told_to_drain = true,
            Ok(count) => decoder.push(&bytes[..count]),
            Err(_) => {}
        }
        while let Some(order) = decoder.next_message().unwrap() {
            match order {
                ToWorker::Drain { kind: told } => (told_to_drain, kind) = (true, told),
                ToWorker::Workers { count } => println!("one of {count}"),
                ToWorker::Adopt | ToWorker::Metrics { .. } => {}
            }
        }
    }
    accept_all(&listener, id, &in_flight);
    drop(listener);
    while in_flight.load(Ordering::SeqCst) > 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = channel.write_all(&encode(&FromWorker::Drained { cut: 0 }));
    0
}

fn accept_all(listener: &TcpListener, id: u32, in_flight: &Arc<AtomicU32>) {
    while let Ok((stream, _)) = listener.accept() {
        in_flight.fetch_add(1, Ordering::SeqCst);
        println!("a connection");
        let in_flight = Arc::clone(in_flight);
        thread::spawn(move || {
            let _ = answer(&stream, id);
            in_flight.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn answer(stream: &TcpStream, id: u32) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    thread::sleep(Duration::from_millis(line.trim().parse().unwrap_or(0)));
    let mut stream = stream;
    writeln!(stream, "w{id} {}", std::process::id())
}

/// Says that it is ready and ends on SIGTERM.
pub(crate) fn process() -> i32 {
    use std::os::linux::net::SocketAddrExt;
    let name = std::env::var("NOTIFY_SOCKET").unwrap();
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name[1..]).unwrap();
    println!("process starts");
    UnixDatagram::unbound().unwrap().send_to_addr(b"READY=1", &address).unwrap();
    wait_for_ever()
}
