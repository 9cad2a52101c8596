//! A worker that knows systemd's protocol only, and behaves as badly as it is told to, by arguments or in `MISBEHAVE` (separated by blanks):
//!
//! - `exit=CODE` as soon as it has printed what it is to; `exit-when-ready=CODE`; `exit-after=MS:CODE`, counted from ready
//! - `never-ready`: serves, but never says so; `ready-after=MS`; `stuck`: does neither
//! - `hang-after=MS`, counted from ready: nothing moves any more, SIGTERM included
//! - `leak=BYTES`: so much more memory every second
//! - `ignore-term`: goes on after SIGTERM
//! - `print=LINES` before ready, to stdout and stderr in turn; `print-forever`
//! - `grandchild`: starts a process that outlives it
//! - `only=ID`: the rest counts in the worker with that `WORKER_ID` alone
//! - `while=PATH`: the rest counts only if that file exists at the start
//! - `else=PATH`: where the rest does not count it becomes that program, with its own arguments
//! - `from=PATH`: more words are in that file
//!
//! It says `STATUS=hanging` before it hangs and `STATUS=sleeping` before it answers late, so that a test can wait for that.
//!
//! Otherwise it answers every request on the sockets of `LISTEN_FDS` with its process id, and on SIGTERM finishes what it is at and
//! exits with 0. Paths do more: `/worker` answers `WORKER_ID:WORKER_GENERATION`, `/environment` all of it, `/grandchild` its process id;
//! `/sleep/MS` answers late, `/hang` hangs everything, `/exit/CODE` exits.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Whoever hangs holds this for ever; everybody else takes it for a moment before each step.
static TURN: Mutex<()> = Mutex::new(());
/// Requests being answered.
static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
/// Process id of the grandchild, 0 without one.
static GRANDCHILD: AtomicU32 = AtomicU32::new(0);

/// Ends the process with that code, from any thread.
type Exit = mpsc::Sender<u8>;

/// What this process was told to do.
#[derive(Default)]
struct Behaviour {
    words: Vec<String>,
    /// The program to become.
    instead: Option<PathBuf>,
}

impl Behaviour {
    fn read() -> Self {
        let more = env::var("MISBEHAVE").unwrap_or_default();
        let words = env::args().skip(1).chain(more.split_whitespace().map(str::to_owned));
        let mut told = Self { words: words.collect(), instead: None };
        let from = told.value("from").map(|path| fs::read_to_string(path).unwrap_or_default()).unwrap_or_default();
        told.words.extend(from.split_whitespace().map(str::to_owned));
        let here = |id: &str| env::var("WORKER_ID").is_ok_and(|own| own == id);
        let counts =
            told.value("only").is_none_or(here) && told.value("while").is_none_or(|path| Path::new(path).exists());
        if counts { told } else { Self { instead: told.value("else").map(PathBuf::from), words: Vec::new() } }
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, String> {
        self.value(name).map(|text| parse(text)).transpose()
    }

    fn milliseconds(&self, name: &str) -> Result<Option<Duration>, String> {
        Ok(self.number(name)?.map(Duration::from_millis))
    }
}

fn main() -> ExitCode {
    let behaviour = Behaviour::read();
    let (exit, exits) = mpsc::channel();
    if let Err(error) = live(&behaviour, &exit) {
        let _ = writeln!(io::stderr(), "misbehaving: {error}");
        return ExitCode::from(2);
    }
    ExitCode::from(exits.recv().unwrap_or(0))
}

/// Starts everything; threads do the rest.
fn live(behaviour: &Behaviour, exit: &Exit) -> Result<(), Box<dyn Error>> {
    if let Some(program) = &behaviour.instead {
        return Err(Command::new(program).args(env::args_os().skip(1)).exec().into());
    }
    take_signals(behaviour, exit.clone())?;
    print_lines(behaviour.number("print")?.unwrap_or(0));
    if let Some(code) = behaviour.number("exit")? {
        exit.send(code)?;
        return Ok(());
    }
    if behaviour.has("print-forever") {
        thread::spawn(|| print_lines(u64::MAX));
    }
    if behaviour.has("grandchild") {
        let null = || Stdio::null();
        let child = Command::new("sleep").arg("1000").stdin(null()).stdout(null()).stderr(null()).spawn()?;
        GRANDCHILD.store(child.id(), Ordering::SeqCst);
    }
    if let Some(bytes) = behaviour.number("leak")? {
        thread::spawn(move || leak(bytes));
    }
    if behaviour.has("stuck") {
        return Ok(());
    }
    serve_inherited(exit)?;
    if let Some(delay) = behaviour.milliseconds("ready-after")? {
        thread::sleep(delay);
    }
    if !behaviour.has("never-ready") {
        // It serves already, and its supervisor may have been killed since.
        let _ = notify("READY=1");
    }
    thread::spawn(beat);
    after_ready(behaviour, exit)
}

/// What is counted from the moment of being ready.
fn after_ready(behaviour: &Behaviour, exit: &Exit) -> Result<(), Box<dyn Error>> {
    if let Some(code) = behaviour.number("exit-when-ready")? {
        exit.send(code)?;
    }
    if let Some(told) = behaviour.value("exit-after") {
        let (delay, code) = told.split_once(':').ok_or("exit-after=MS:CODE")?;
        let (delay, code) = (Duration::from_millis(parse(delay)?), parse(code)?);
        let exit = exit.clone();
        thread::spawn(move || {
            thread::sleep(delay);
            exit.send(code)
        });
    }
    if let Some(delay) = behaviour.milliseconds("hang-after")? {
        thread::spawn(move || {
            thread::sleep(delay);
            hang()
        });
    }
    Ok(())
}

fn take_signals(behaviour: &Behaviour, exit: Exit) -> io::Result<()> {
    // A terminal sends INT to everybody; it is the supervisor that decides what it means.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let deaf = behaviour.has("ignore-term");
    thread::spawn(move || {
        for signal in signals.forever().filter(|&signal| signal == SIGTERM && !deaf) {
            drop(turn());
            let _ = notify("STOPPING=1");
            while IN_FLIGHT.load(Ordering::SeqCst) > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            if exit.send(0).is_err() {
                return signal;
            }
        }
        0
    });
    Ok(())
}

fn serve_inherited(exit: &Exit) -> io::Result<()> {
    let mut inherited = ListenFd::from_env();
    for index in 0..inherited.len() {
        let exit = exit.clone();
        // A socket of the wrong kind stays where it is.
        if let Ok(Some(listener)) = inherited.take_tcp_listener(index) {
            thread::spawn(move || accept(&listener, || Ok(listener.accept()?.0), &exit));
        } else if let Some(listener) = inherited.take_unix_listener(index)? {
            thread::spawn(move || accept(&listener, || Ok(listener.accept()?.0), &exit));
        }
    }
    Ok(())
}

/// Whether accepting waits is left as it is: those who have inherited the same socket rely on it.
fn accept<S: Read + Write + Send + 'static>(listener: &impl AsFd, next: impl Fn() -> io::Result<S>, exit: &Exit) {
    loop {
        drop(turn());
        let mut comes = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut comes, PollTimeout::NONE);
        let Ok(stream) = next() else { continue };
        let exit = exit.clone();
        thread::spawn(move || answer_all(stream, &exit));
    }
}

/// Answers the requests of one connection; only their paths are looked at, and bodies are not expected.
fn answer_all(mut stream: impl Read + Write, exit: &Exit) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).ok().filter(|&read| read > 0)?;
            received.extend_from_slice(&piece[..read]);
        };
        IN_FLIGHT.fetch_add(1, Ordering::SeqCst);
        let head: Vec<u8> = received.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head);
        let body = answer(head.split(' ').nth(1).unwrap_or("/"), exit);
        drop(turn());
        let written = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        IN_FLIGHT.fetch_sub(1, Ordering::SeqCst);
        written.ok()?;
    }
}

fn answer(path: &str, exit: &Exit) -> String {
    let mut parts = path.trim_start_matches('/').split('/');
    let (name, argument) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let variable = |name| env::var(name).unwrap_or_default();
    match name {
        "worker" => format!("{}:{}", variable("WORKER_ID"), variable("WORKER_GENERATION")),
        "environment" => env::vars().map(|(name, value)| format!("{name}={value}\n")).collect(),
        "grandchild" => GRANDCHILD.load(Ordering::SeqCst).to_string(),
        "sleep" => {
            let _ = notify("STATUS=sleeping");
            thread::sleep(Duration::from_millis(argument.parse().unwrap_or(0)));
            "slept".into()
        }
        "hang" => hang(),
        "exit" => {
            let _ = exit.send(argument.parse().unwrap_or(1));
            // The answer never comes: the process is about to end.
            wait_for_the_end()
        }
        _ => std::process::id().to_string(),
    }
}

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hang() -> ! {
    let _turn = turn();
    let _ = notify("STATUS=hanging");
    wait_for_the_end()
}

fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

fn leak(bytes_per_second: usize) {
    let mut leaked = Vec::new();
    loop {
        // Written, not only reserved, so that it counts as resident.
        leaked.push(vec![1_u8; bytes_per_second / 20]);
        thread::sleep(Duration::from_millis(50));
    }
}

fn print_lines(lines: u64) {
    for number in 0..lines {
        let written = match number % 2 {
            0 => writeln!(io::stdout(), "line {number} to stdout"),
            _ => writeln!(io::stderr(), "line {number} to stderr"),
        };
        if written.is_err() {
            return;
        }
    }
}

/// Shows every half second that the process is not hanging.
fn beat() {
    loop {
        drop(turn());
        let _ = notify("WATCHDOG=1");
        thread::sleep(Duration::from_millis(500));
    }
}

/// Tells the supervisor something, if it listens.
fn notify(message: &str) -> io::Result<()> {
    let Ok(path) = env::var("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}

fn parse<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}
