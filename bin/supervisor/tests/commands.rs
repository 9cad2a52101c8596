//! The command line as a shell sees it: exit codes, streams, and one whole life of a supervised program.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

#[path = "commands/detached.rs"]
mod detached;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use test_support::{GuardedChild, eventually};

/// A directory of its own, without the caller's environment.
struct Shell {
    directory: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supervisor"));
        command.args(arguments).current_dir(self.directory.path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }
}

#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ends by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{}", self.stdout))
    }
}

#[test]
fn wrong_usage_ends_with_2_and_a_suggestion() {
    let ended = Shell::new().run(&["up", "--wokers", "2"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("'--workers'"), "{}", ended.stderr);
}

#[test]
fn every_verb_that_needs_a_supervisor_ends_with_3_without_one() {
    let verbs = [
        &["status"][..],
        &["status", "--json"],
        &["status", "--watch"],
        &["ls"],
        &["describe", "w0"],
        &["describe", "0", "--json"],
        &["ping"],
        &["stop"],
        &["stop", "--now"],
        &["logs"],
        &["logs", "-f", "w0"],
    ];
    for verb in verbs {
        let ended = Shell::new().run(verb);
        assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{verb:?}");
        assert!(ended.stderr.contains("no supervisor is running"), "{verb:?}: {}", ended.stderr);
    }
}

#[test]
fn top_without_a_terminal_ends_with_2_and_names_what_works() {
    for verb in ["top", "monit"] {
        let ended = Shell::new().run(&[verb]);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{verb}");
        assert!(ended.stderr.contains("status --watch"), "{}", ended.stderr);
    }
}

#[test]
fn an_invalid_configuration_ends_every_command_with_78_and_all_mistakes() {
    let shell = Shell::new();
    shell.write("bellwether.toml", "[supervisor]\nworkres = 4\n[http]\nkeep_alive = 5\n");
    for command in [&["up"][..], &["start"], &["status"], &["config", "check"], &["token"], &["db", "status"]] {
        let ended = shell.run(command);
        assert_eq!((ended.code, ended.stdout.as_str()), (78, ""), "{command:?}");
        for part in ["\nbellwether.toml:2:1: ", "did you mean `workers`?", "\nbellwether.toml:4:14: "] {
            assert!(ended.stderr.contains(part), "{part} is missing in\n{}", ended.stderr);
        }
    }
    let ended = shell.run(&["config", "check", "--json"]);
    assert_eq!(ended.code, 78);
    assert_eq!(ended.json()["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn what_config_init_writes_passes_config_check_without_a_warning() {
    let shell = Shell::new();
    assert_eq!(shell.run(&["config", "init"]).code, 0);
    let ended = shell.run(&["config", "check"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(ended.stdout, "bellwether.toml is valid\n");
    let again = shell.run(&["config", "init"]);
    assert_eq!(again.code, 73, "an existing file is overwritten");
    let printed = shell.run(&["config", "init", "--print"]).stdout;
    assert_eq!(printed, std::fs::read_to_string(shell.directory.path().join("bellwether.toml")).unwrap());
}

#[test]
fn config_show_tells_every_origin_and_no_secret() {
    let shell = Shell::new();
    shell.write("bellwether.toml", "[log]\nlevel = \"debug\"\n");
    let arguments = ["config", "show", "--origin", "--set", "http.keep_alive=7s"];
    let output = shell.command(&arguments).env("REDIS_URL", "redis://:s3cret@h").output().unwrap();
    let ended = Ended::of(output);
    let expected = [
        ("log.level = \"debug\"", "bellwether.toml:2"),
        ("http.keep_alive = \"7s\"", "flag --set"),
        ("redis.url = \"redis://:***@h\"", "env REDIS_URL"),
        ("cache.l1_budget = \"64MiB\"", "default"),
    ];
    for (assignment, origin) in expected {
        let line = ended.stdout.lines().find(|line| line.starts_with(assignment));
        let line = line.unwrap_or_else(|| panic!("{assignment} is missing in\n{}", ended.stdout));
        assert!(line.ends_with(&format!("# {origin}")), "{line}");
    }
    assert!(!ended.stdout.contains("s3cret"));
    let document = shell.run(&["config", "show", "--json"]).json();
    assert_eq!(document["schema"], "bellwether.config/v1");
    assert_eq!(document["settings"]["log.level"]["value"], "debug");
}

#[test]
fn up_without_any_redis_ends_with_69_and_the_line_that_installs_one() {
    let shell = Shell::new();
    let ended = Ended::of(shell.command(&["up"]).env("PATH", shell.directory.path()).output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (69, ""));
    assert!(ended.stderr.contains("neither redis-server nor valkey-server"), "{}", ended.stderr);
    assert!(ended.stderr.contains("REDIS_URL="), "{}", ended.stderr);
}

#[test]
fn a_missing_worker_ends_with_69_and_its_name() {
    let shell = Shell::new();
    for command in [&["start", "--worker-bin", "./none"][..], &["token", "--worker-bin", "./none"]] {
        let ended = shell.run(command);
        assert_eq!(ended.code, 69, "{command:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("none"), "{command:?}: {}", ended.stderr);
    }
}

#[test]
fn a_port_that_is_taken_ends_with_73_and_names_it_and_who_holds_it() {
    let shell = Shell::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = shell.run(&["start", "--listen", &address, "--", "true"]);
    assert_eq!(ended.code, 73, "{}", ended.stderr);
    let holder = format!("(pid {})", std::process::id());
    assert!(ended.stderr.contains(&address) && ended.stderr.contains(&holder), "{}", ended.stderr);
}

#[test]
fn a_program_is_started_shown_and_stopped() {
    let shell = Shell::new();
    let flags =
        ["--workers", "2", "--listen", "127.0.0.1:0", "--set", "supervisor.min_uptime=50ms", "--pid-file", "pid"];
    let arguments: Vec<_> = ["start"].into_iter().chain(flags).chain(["--", "sleep", "1000"]).collect();
    let mut command = shell.command(&arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut supervisor = GuardedChild::spawn(&mut command).unwrap();
    let pid = supervisor.pid();

    let status = eventually(Duration::from_secs(10), || {
        let ended = shell.run(&["status", "--json"]);
        let ready = ended.stdout.matches("\"state\":\"ready\"").count();
        (ready == 2).then_some(ended)
    });
    assert_eq!(status.stderr, "");
    let document = status.json();
    assert_eq!(document["schema"], "bellwether.status/v1");
    assert_eq!(document["supervisor"]["pid"], pid);
    assert_eq!(document["workers"][1]["last_exit"], serde_json::Value::Null);

    let table = shell.run(&["ps"]);
    assert!(table.stdout.contains("2 of 2 workers ready"), "{}", table.stdout);
    assert!(table.stdout.is_ascii(), "no locale was set, and no terminal is there:\n{}", table.stdout);
    assert_eq!(shell.run(&["ping"]).stdout, format!("supervisor {} answers, pid {pid}\n", env!("CARGO_PKG_VERSION")));
    let pid_file = shell.directory.path().join("pid");
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), format!("{pid}\n"));

    let stopped = shell.run(&["stop", "--quiet"]);
    assert_eq!((stopped.code, stopped.stdout.as_str(), stopped.stderr.as_str()), (0, "", ""));
    assert_eq!(supervisor.child().wait().unwrap().code(), Some(0));
    assert!(!Path::new(&pid_file).exists(), "the pid file is left behind");
}

#[test]
fn logs_shows_what_a_program_wrote_and_where_the_files_are_when_its_supervisor_is_gone() {
    let shell = Shell::new();
    let script = "echo hello; echo '{\"level\":\"warn\"}' >&2; while :; do echo tick; sleep 0.02; done";
    let flags = ["--listen", "127.0.0.1:0", "--workers", "1", "--set", "supervisor.min_uptime=50ms", "--quiet"];
    let arguments: Vec<_> = ["start"].into_iter().chain(flags).chain(["--", "sh", "-c", script]).collect();
    let mut command = shell.command(&arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut supervisor = GuardedChild::spawn(&mut command).unwrap();
    let all = ["logs", "--lines", "5000"];
    let shown = eventually(Duration::from_secs(10), || {
        let ended = shell.run(&all);
        ended.stdout.contains("w0| tick\n").then_some(ended)
    });
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    for line in ["w0| hello\n", "w0| {\"level\":\"warn\"}\n", "supervisor| 2"] {
        assert!(shown.stdout.contains(line), "{line} is missing in\n{}", shown.stdout);
    }
    let colored = shell.run(&["logs", "0", "--color", "always"]).stdout;
    assert!(colored.starts_with("\u{1b}[36mw0|\u{1b}[0m "), "{colored}");

    let json = shell.run(&["logs", "0", "-n", "5000", "--json"]).stdout;
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["line"] == "hello" && line["stream"] == "stdout"), "{json}");
    assert!(lines.iter().any(|line| line["message"]["level"] == "warn" && line["worker"] == "w0"), "{json}");

    let stranger = shell.run(&["logs", "redis"]);
    assert_eq!((stranger.code, stranger.stdout.as_str()), (1, ""));
    assert!(stranger.stderr.contains("neither a worker nor a process redis"), "{}", stranger.stderr);

    let mut follow = shell.command(&["logs", "-f", "w0", "--lines", "0"]);
    let mut follower = GuardedChild::spawn(follow.stdout(Stdio::piped()).stderr(Stdio::null())).unwrap();
    let mut first = String::new();
    BufReader::new(follower.child().stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "w0| tick\n");
    assert_eq!(follower.child().wait().unwrap().code(), Some(0), "a reader who leaves is no failure");

    assert_eq!(shell.run(&["stop", "--quiet"]).code, 0);
    supervisor.child().wait().unwrap();
    let gone = shell.run(&["logs"]);
    assert_eq!((gone.code, gone.stdout.as_str()), (3, ""));
    assert!(gone.stderr.contains(".bellwether/logs"), "{}", gone.stderr);
    let kept = std::fs::read_to_string(shell.directory.path().join(".bellwether/logs/out.log")).unwrap();
    assert!(kept.starts_with("w0| hello\nw0| tick\n"), "{kept}");
}
