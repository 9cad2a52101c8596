//! The command line: what can be typed, and what `--help` says about it.

mod cache;
mod limits;
mod parse;
mod store;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use config::{Assignment, ListenAddress, Workers};

pub(crate) use self::cache::{Cache, Entry, Flush};
pub(crate) use self::limits::{Limits, Whom};
pub(crate) use self::store::{Db, Token};
use crate::exit;

const TEMPLATE: &str = "\
{about}
{usage-heading} {usage}

{before-help}{options}{after-help}";

/// Clap cannot group commands, so they are listed here; a test compares both lists with what there is.
const COMMANDS: &str = "\
Run:     up, start, stop
Look:    status (ls, list, ps), describe, logs, top (monit), ping
Change:  reload, scale, restart, upgrade, limits, cache
Set up:  config, db, token, doctor, service, healthcheck, completions, man
`--help` tells what each one does.";

const COMMANDS_EXPLAINED: &str = "\
Run:
  up           everything by default: private Redis, SQLite, demo data, one worker per core
  start        production: what the configuration says, or any program after `--`
  stop         drain the workers and end the supervisor
Look:
  status       the table of workers (also ls, list, ps)
  describe     everything about one worker
  logs         what workers and supervisor wrote
  top          a live view with keys to act (also monit)
  ping         whether the supervisor answers
Change:
  reload       replace all workers by new ones, without losing a request
  scale        run more or fewer workers
  restart      replace one worker, or all
  upgrade      replace the supervisor's own program in place
  limits       what is left for a client; reset, block, unblock
  cache        how it does and what it holds; warm, del, flush
Set up:
  config       check, show, init, schema
  db           migrate, status, rollback, seed
  token        a bearer token for the API
  doctor       find what is wrong with this machine or configuration
  service      a unit for systemd
  healthcheck  whether the service answers, for containers
  completions  for bash, zsh, fish, elvish or powershell
  man          manual pages";

const EXAMPLES: &str = "\
Examples:
  supervisor up                        a first look: everything by default
  supervisor config init               a commented bellwether.toml
  supervisor start --workers 4         production
  supervisor status                    what is running";

/// Keeps one worker per core alive.
#[derive(Debug, Parser)]
#[command(
    name = "supervisor",
    version,
    about = "Keeps one worker per core alive, and all of them behind one set of sockets.",
    help_template = TEMPLATE,
    before_help = COMMANDS,
    before_long_help = COMMANDS_EXPLAINED,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::TABLE),
    disable_help_subcommand = true,
    max_term_width = 120
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Configuration file [default: bellwether.toml here or in /etc/bellwether]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Set one key, as --set http.keep_alive=10s; repeatable
    #[arg(long, value_name = "KEY=VALUE", global = true, value_parser = parse::set)]
    pub(crate) set: Vec<Assignment>,
    /// Where the control socket and generated files live [default: .bellwether]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) state_dir: Option<PathBuf>,
    /// The supervisor's control socket
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Colours
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto", hide_possible_values = true)]
    pub(crate) color: ColorChoice,
    /// Say only what is wrong
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything by default, in the foreground, for a first look and for development
    #[command(after_help = "\
Examples:
  supervisor up                                a catalogue with demo data at http://127.0.0.1:8080
  supervisor up --workers 2 --seed large       two workers, 120,000 products
  REDIS_URL=redis://10.0.0.5 supervisor up     with a Redis of your own")]
    Up(Up),
    /// Run what the configuration says, in the foreground; never seeds
    #[command(after_help = "\
Examples:
  supervisor start                                     as bellwether.toml says
  supervisor start --listen 0.0.0.0:80 --user www-data
  supervisor start --workers 2 -- node server.js       any program that takes LISTEN_FDS")]
    Start(Start),
    /// Drain the workers and end the supervisor; returns when it is gone
    #[command(after_help = "\
Examples:
  supervisor stop          finish what is in flight first
  supervisor stop --now    kill everything at once")]
    Stop(Stop),
    /// Show the table of workers
    #[command(visible_aliases = ["ls", "list", "ps"], after_help = "\
Examples:
  supervisor status
  supervisor status --watch
  supervisor status --json | jq '.workers[].state'")]
    Status(Status),
    /// Show everything about one worker
    #[command(after_help = "\
Examples:
  supervisor describe 0
  supervisor describe w3 --json | jq .exits")]
    Describe(Describe),
    /// Print what workers, processes and the supervisor wrote last
    #[command(after_help = "\
Examples:
  supervisor logs --lines 100
  supervisor logs -f w0
  supervisor logs --json | jq 'select(.worker == \"w1\") | .line'")]
    Logs(Logs),
    /// Watch workers, rates and logs live; keys reload, scale and restart
    #[command(
        visible_alias = "monit",
        after_help = "\
Examples:
  supervisor top"
    )]
    Top,
    /// Replace all workers by the next generation, one by one, without losing a request
    #[command(after_help = "\
Examples:
  supervisor reload                               the configuration and executable as they are now
  supervisor reload --binary releases/42/worker   another executable from now on

The first new worker has to serve for `supervisor.canary` before the others follow. If a new worker exits or is not
ready in time, everything goes back to what ran before, and the exit code is 4.")]
    Reload(Reload),
    /// Run another number of workers; lasts until the supervisor ends
    #[command(after_help = "\
Examples:
  supervisor scale 4
  supervisor scale +2
  supervisor scale -1")]
    Scale(Scale),
    /// Replace one worker, or all of them one by one, the successor first
    #[command(after_help = "\
Examples:
  supervisor restart 0
  supervisor restart all
  supervisor restart w2 --hard     kill it first")]
    Restart(Restart),
    /// Replace the supervisor's own program in place: same process, same sockets, same workers
    #[command(after_help = "\
Examples:
  install -m 755 new/supervisor /usr/local/bin/supervisor && supervisor upgrade")]
    Upgrade,
    /// Ask whether the supervisor answers
    #[command(after_help = "\
Examples:
  supervisor ping || supervisor start")]
    Ping(Json),
    /// Check, show or create the configuration
    #[command(
        subcommand,
        after_help = "\
Examples:
  supervisor config init                 write a commented bellwether.toml
  supervisor config check                find all mistakes at once
  supervisor config show --origin        every value, and what gave it"
    )]
    Config(Config),
    /// Migrate, inspect, roll back or seed the database
    #[command(
        subcommand,
        after_help = "\
Examples:
  supervisor db status                   exit code 4 when migrations are missing
  supervisor db migrate
  supervisor db seed small --if-empty"
    )]
    Db(Db),
    /// Look at limits, and reset, block or unblock a client, in the running cluster
    #[command(
        subcommand,
        after_help = "\
Examples:
  supervisor limits ls                                  the policies
  supervisor limits show address:192.0.2.1              what is left for a client
  supervisor limits block address:192.0.2.1 --for 10m"
    )]
    Limits(Limits),
    /// Look at the cache of the running cluster, and make workers forget
    #[command(
        subcommand,
        after_help = "Examples:\n  supervisor cache stats\n  supervisor cache get product green-tea\n  supervisor cache flush --tag listing"
    )]
    Cache(Cache),
    /// Print a bearer token for the API
    #[command(after_help = "\
Examples:
  supervisor token --hours 1
  supervisor token --role vendor --vendor ID
  curl -H \"authorization: Bearer $(supervisor token)\" …")]
    Token(Token),
    /// Find what is wrong with this machine, its configuration or what the service depends on
    #[command(after_help = "\
Examples:
  supervisor doctor
  supervisor doctor --json | jq '.checks[] | select(.severity != \"ok\")'")]
    Doctor(Json),
    /// Print what makes this a service of the system
    #[command(subcommand, after_help = "Example:\n  supervisor service print > /etc/systemd/system/bellwether.service")]
    Service(Service),
    /// Exit with 0 while the service is ready, for the health checks of containers
    #[command(after_help = "\
Examples:
  supervisor healthcheck
  HEALTHCHECK CMD [\"supervisor\", \"healthcheck\"]")]
    Healthcheck,
    /// Print completions for a shell
    #[command(after_help = "Example:\n  supervisor completions bash > /etc/bash_completion.d/supervisor")]
    Completions(Completions),
    /// Print the manual page, or write one for every command to a directory
    #[command(after_help = "Examples:\n  supervisor man | man -l -\n  supervisor man /usr/local/share/man/man1")]
    Man(Man),
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Demo data for an empty database: none, small (1,000 products) or large (120,000)
    #[arg(long, value_name = "SIZE", default_value = "small", hide_possible_values = true)]
    pub(crate) seed: Seed,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Return once all workers are ready, and leave them running without this terminal
    #[arg(long)]
    pub(crate) detach: bool,
    /// Bring an older database up to date before the first worker
    #[arg(long)]
    pub(crate) migrate: bool,
    /// A program to supervise in the place of the worker, with its arguments
    #[arg(last = true, value_name = "PROGRAM ARGS", conflicts_with_all = ["migrate", "worker_bin"])]
    pub(crate) program: Vec<OsString>,
}

/// What `up` and `start` have in common.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running")]
pub(crate) struct Run {
    /// How many workers: N, max (one per usable core), -N for N fewer [default: max] [env: WEB_CONCURRENCY]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) workers: Option<Workers>,
    /// Where to serve, ADDR:PORT or unix:PATH; repeatable [env: PORT, HOST]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<ListenAddress>,
    /// Where to serve metrics [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<String>,
    /// The user that workers run as
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// A file for the supervisor's process id
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// pretty or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// The worker's executable [default: the one beside this]
    #[arg(long, value_name = "PATH")]
    pub(crate) worker_bin: Option<PathBuf>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Pretty,
    Json,
}

/// How much demo data there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Seed {
    None,
    Small,
    Large,
}

/// How much demo data is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeedSize {
    Small,
    Large,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Kill everything at once instead of finishing what is in flight
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Json {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Show it anew every second until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Which worker, as 0 or w0
    #[arg(value_name = "ID", value_parser = parse::worker)]
    pub(crate) id: u32,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Of one only: 0 or w0, the name of a process, or supervisor
    #[arg(value_name = "ID", value_parser = parse::source)]
    pub(crate) source: Option<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) lines: u32,
    /// One JSON document per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// The workers' executable from now on
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// So many, so many more (+N) or fewer (-N)
    #[arg(value_name = "N", allow_hyphen_values = true, value_parser = parse::scale)]
    pub(crate) to: supervise::control::Scale,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Which worker, as 0 or w0, or all
    #[arg(value_name = "ID|all", value_parser = parse::workers)]
    pub(crate) which: WorkerChoice,
    /// Kill first instead of starting the successor first
    #[arg(long)]
    pub(crate) hard: bool,
}

/// Which workers a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerChoice {
    All,
    One(u32),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Print a hardened systemd unit for this executable and configuration
    #[command(after_help = "Example:\n  supervisor service print > /etc/systemd/system/bellwether.service")]
    Print,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where to write one page per command
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Find all mistakes at once
    #[command(after_help = "Example:\n  supervisor --config new.toml config check")]
    Check(Json),
    /// Print every key with its value
    #[command(after_help = "Example:\n  supervisor config show --origin")]
    Show(Show),
    /// Write a commented bellwether.toml that holds the defaults
    #[command(after_help = "Examples:\n  supervisor config init\n  supervisor config init --print > example.toml")]
    Init(Init),
    /// Print the JSON Schema of the configuration file
    #[command(after_help = "Example:\n  supervisor config schema > bellwether.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Say what gave each value
    #[arg(long)]
    pub(crate) origin: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Print it instead
    #[arg(long)]
    pub(crate) print: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerBin {
    /// The worker's executable [default: the one beside this]
    #[arg(long, value_name = "PATH")]
    pub(crate) worker_bin: Option<PathBuf>,
}

/// The name that a choice has on the command line.
pub(crate) fn name_of(choice: &impl ValueEnum) -> String {
    let value = choice.to_possible_value().expect("no choice is hidden");
    value.get_name().to_owned()
}

#[cfg(test)]
mod tests;
