//! The command line as people type it, and its help.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace())
}

fn help(line: &str) -> String {
    parse(line).expect_err("help is given as an error").to_string()
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn the_short_help_fits_a_terminal_and_lists_every_command() {
    let help = help("supervisor -h");
    assert!(help.lines().count() <= 24, "{} lines:\n{help}", help.lines().count());
    let explained = super::COMMANDS_EXPLAINED;
    for command in Arguments::command().get_subcommands() {
        let name = command.get_name();
        let names = |text: &str| text.split([' ', ',', '\n', '(', ')']).any(|word| word == name);
        assert!(names(super::COMMANDS), "{name} is missing in\n{help}");
        assert!(explained.contains(&format!("\n  {name:<11}  ")), "{name} is missing in\n{explained}");
    }
}

#[test]
fn the_long_help_has_the_table_of_exit_codes() {
    assert!(help("supervisor --help").contains(exit::TABLE));
}

#[test]
fn every_commands_help_has_an_example_and_fits_one_screen() {
    fn visit(path: &str, command: &clap::Command) {
        let help = help(&format!("{path} --help"));
        assert!(help.contains("Example"), "{path} --help has no example:\n{help}");
        assert!(help.lines().count() <= 50, "{path} --help has {} lines", help.lines().count());
        for child in command.get_subcommands() {
            visit(&format!("{path} {}", child.get_name()), child);
        }
    }
    for command in Arguments::command().get_subcommands() {
        visit(&format!("supervisor {}", command.get_name()), command);
    }
}

#[test]
fn a_mistyped_command_or_flag_is_wrong_usage_with_a_suggestion() {
    let cases = [
        ("supervisor statsu", ErrorKind::InvalidSubcommand, "status"),
        ("supervisor up --worker 2", ErrorKind::UnknownArgument, "--worker"),
        ("supervisor up --sed none", ErrorKind::UnknownArgument, "--seed"),
        ("supervisor up --seed smal", ErrorKind::InvalidValue, "small"),
        ("supervisor start --workers some", ErrorKind::ValueValidation, "a number of workers"),
        ("supervisor start --listen 8080", ErrorKind::ValueValidation, "an address such as"),
        ("supervisor up --set a", ErrorKind::ValueValidation, "KEY=VALUE"),
        ("supervisor token --role vendor", ErrorKind::MissingRequiredArgument, "--vendor"),
        ("supervisor limits block address:192.0.2.1", ErrorKind::MissingRequiredArgument, "--for"),
        ("supervisor cache warm --rate 0", ErrorKind::ValueValidation, "--rate"),
        ("supervisor cache flush", ErrorKind::MissingRequiredArgument, "--tag"),
        ("supervisor cache flush --all --tag a", ErrorKind::ArgumentConflict, "--tag"),
        ("supervisor status -q -v", ErrorKind::ArgumentConflict, "--verbose"),
        ("supervisor", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, "Usage"),
    ];
    for (line, kind, part) in cases {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(part), "{part} is missing in\n{error}");
    }
}

#[test]
fn the_documented_spellings_are_understood() {
    let lines = [
        "supervisor up",
        "supervisor up --seed none --workers max --listen 127.0.0.1:0 --listen unix:/tmp/a.sock",
        "supervisor up --workers -1",
        "supervisor up --workers=-1 --admin-listen 127.0.0.1:0 --pid-file /tmp/pid --log-format json",
        "supervisor --config a.toml start --migrate --user nobody --state-dir /var/lib/a",
        "supervisor start --workers 2 -- node server.js --port 1",
        "supervisor ls",
        "supervisor list --json",
        "supervisor ps --color never",
        "supervisor stop --now --socket /tmp/s.sock",
        "supervisor config show --origin --json --set http.keep_alive=1s --set log.level=debug",
        "supervisor token --role admin --hours 1",
        "supervisor token --role vendor --vendor 019384b9-5a00-7595-a52f-8b1b7c7a2966",
        "supervisor db seed large --if-empty",
        "supervisor db status --json",
        "supervisor limits ls --json",
        "supervisor limits show --json user:a",
        "supervisor limits reset address:192.0.2.1 --policy a --policy b",
        "supervisor limits block address:192.0.2.1 --for 10m",
        "supervisor limits unblock api_key:-",
        "supervisor cache stats --json",
        "supervisor cache get product green-tea --json",
        "supervisor cache del list -- categories",
        "supervisor cache flush --tag listing --tag vendor:1",
        "supervisor cache flush --all --socket /tmp/s.sock",
        "supervisor cache warm --rate 10",
    ];
    for line in lines {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_follows_two_dashes_belongs_to_the_program() {
    let Command::Start(start) = parse("supervisor start -- node --workers 3").unwrap().command else { panic!("start") };
    assert_eq!(start.program, ["node", "--workers", "3"]);
    assert_eq!(start.run.workers, None);
}
