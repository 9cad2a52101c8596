//! What `up` brings along, at the start and at every reload.

use std::fs;

use clap::Parser;

use super::*;
use crate::arguments::{Arguments, Command};

/// `up` with this configuration file and environment, in `directory`.
fn plan(directory: &Path, file: &str, environment: &[(&str, &str)]) -> Result<Plan, Failure> {
    let path = directory.join("bellwether.toml");
    fs::write(&path, file).unwrap();
    let (config, state_dir) = (path.to_str().unwrap(), directory.join("state"));
    let words = ["supervisor", "--config", config, "--state-dir", state_dir.to_str().unwrap(), "up"];
    let arguments = Arguments::try_parse_from(words).unwrap();
    let Command::Up(up) = &arguments.command else { panic!("up") };
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = Sources { environment, ..settings::running_sources(&arguments.global, &up.run) };
    planner(&arguments.global, sources, up, 2)(None)
}

#[test]
fn its_own_defaults_and_the_private_redis_come_first_and_the_users_processes_after() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[[supervisor.process]]\nname = \"jobs\"\ncommand = [\"jobs\"]\n";
    let spec = plan(directory.path(), file, &[]).unwrap_or_else(|failure| panic!("{}", failure.message)).spec;
    let names: Vec<_> = spec.processes.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names, ["redis", "jobs"]);
    assert_eq!(spec.listen[0].to_string(), "127.0.0.1:8080");
    let settings = String::from_utf8(spec.settings).unwrap();
    assert!(settings.contains("\"expose_worker\":true") && settings.contains("state/redis/redis.sock"), "{settings}");
    assert!(directory.path().join("state/redis").is_dir());
}

#[test]
fn a_redis_that_was_named_takes_the_place_of_the_private_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[[supervisor.process]]\nname = \"redis\"\ncommand = [\"redis-server\"]\n";
    let plan = plan(directory.path(), file, &[("REDIS_URL", "redis://127.0.0.1:6379")]);
    let spec = plan.unwrap_or_else(|failure| panic!("{}", failure.message)).spec;
    assert_eq!(spec.processes.len(), 1);
    assert_eq!(spec.processes[0].program, "redis-server");
}

#[test]
fn a_process_with_the_private_rediss_name_is_a_wrong_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[[supervisor.process]]\nname = \"redis\"\ncommand = [\"redis-server\"]\n";
    let failure = plan(directory.path(), file, &[]).err().expect("two of one name");
    assert_eq!(failure.exit, Exit::Misconfigured);
    assert!(failure.message.contains("REDIS_URL"), "{}", failure.message);
}

#[test]
fn a_database_from_before_the_workers_had_a_user_is_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("bellwether.db"), "").unwrap();
    let environment = [("REDIS_URL", "redis://127.0.0.1:6379")];
    // Their own user, so that this needs no root.
    let file = format!("[supervisor]\nuser = \"{}\"\n", user());
    let failure = plan(directory.path(), &file, &environment).err().expect("an empty database in its place");
    assert_eq!(failure.exit, Exit::Misconfigured);
    assert!(failure.message.contains("bellwether.db") && failure.message.contains("data"), "{}", failure.message);
    fs::write(state.join("data/bellwether.db"), "").unwrap();
    assert!(plan(directory.path(), &file, &environment).is_ok(), "it was moved");
}

fn user() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
