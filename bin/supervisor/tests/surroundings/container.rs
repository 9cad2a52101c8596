//! The container's files, as far as they can be checked without an engine: what they name exists, and what they set is valid.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{Ended, Shell};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The instructions of the Dockerfile, each on one line.
fn instructions() -> Vec<String> {
    let text = text("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn arguments_of(instruction: &str) -> Vec<String> {
    let prefix = format!("{instruction} ");
    instructions().iter().filter_map(|line| line.strip_prefix(&prefix).map(str::to_owned)).collect()
}

/// The members of a JSON list such as `["supervisor", "start"]`.
fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text} is no list of words: {error}"))
}

#[test]
fn everything_that_the_image_copies_exists_and_is_not_ignored() {
    let ignored = text(".dockerignore");
    let kept: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut copied = Vec::new();
    for words in arguments_of("COPY") {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let (_, sources) = words.split_last().unwrap();
        if !words[0].starts_with("--from") {
            copied.extend(sources.to_vec());
        }
    }
    for source in &copied {
        assert!(root().join(source).exists(), "{source} does not exist");
        assert!(kept.contains(&source.as_str()), "{source} is not let through by .dockerignore");
    }
    let manifest = text("Cargo.toml");
    for member in ["crates", "bin", "tests"] {
        assert!(manifest.contains(&format!("\"{member}")) && copied.iter().any(|source| source == member), "{member}");
    }
}

#[test]
fn every_program_that_the_image_names_is_one_of_ours() {
    let programs = ["supervisor", "worker"];
    let build = instructions().into_iter().find(|line| line.contains("cargo build")).unwrap();
    for program in programs {
        assert!(
            build.contains(&format!("-p {program}")) && build.contains(&format!("target/release/{program}")),
            "{build}"
        );
        assert!(root().join("bin").join(program).join("Cargo.toml").exists());
    }
    let copied = arguments_of("COPY").into_iter().find(|words| words.starts_with("--from")).unwrap();
    assert_eq!(copied, "--from=build /out/supervisor /out/worker /usr/local/bin/");
    assert_eq!(arguments_of("ENTRYPOINT").iter().map(|words| list(words)).collect::<Vec<_>>(), [["supervisor"]]);
}

#[test]
fn the_image_runs_as_nobody_special_and_ends_with_a_drain() {
    assert_eq!(arguments_of("USER"), ["10001:10001"]);
    assert_eq!(arguments_of("STOPSIGNAL"), ["SIGTERM"]);
}

#[test]
fn the_commands_of_image_and_compose_file_are_understood() {
    let healthcheck = arguments_of("HEALTHCHECK").remove(0);
    let healthcheck = list(healthcheck.split_once("CMD ").unwrap().1);
    let compose = text("compose.yaml");
    let of_service = compose.lines().find_map(|line| line.trim().strip_prefix("command: ")).unwrap();
    let commands = [list(&arguments_of("CMD").remove(0)), list(of_service), healthcheck[1..].to_vec()];
    assert_eq!(healthcheck[0], "supervisor");
    for command in commands {
        let words: Vec<_> = command.iter().map(String::as_str).chain(["--help"]).collect();
        assert_eq!(Shell::new().run(&words).code, 0, "{command:?}");
    }
}

#[test]
fn what_image_and_compose_file_set_is_valid_configuration() {
    let shell = Shell::new();
    let of_image = arguments_of("ENV").into_iter().map(|pair| pair.split_once('=').map(owned).unwrap());
    let compose = text("compose.yaml");
    let of_compose = compose.lines().filter_map(|line| line.trim().split_once(": ").map(owned));
    let ours = |name: &str| name.starts_with("BELLWETHER__") || ["REDIS_URL", "DATABASE_URL"].contains(&name);
    let variables: Vec<_> = of_image.chain(of_compose.filter(|(name, _)| ours(name))).collect();
    assert!(variables.len() >= 4, "{variables:?}");
    let variables = variables.into_iter().map(|(name, value)| (name, value.replace("${DATABASE_URL:-}", "")));
    let checked = Ended::of(shell.command(&["config", "check"]).envs(variables));
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
