//! From settings to a specification.

use clap::Parser;
use config::{Assignment, Sources};

use super::*;
use crate::arguments::Arguments;

/// What `assignments` make of a program of the user's on four cores.
fn spec_of(assignments: &[(&str, &str)]) -> Spec {
    let flags = assignments.iter().map(|(key, value)| Assignment::new(*key, *value, "--set")).collect();
    let loaded = config::load(&Sources { flags, ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems}"));
    let program = Program::Foreign { program: "sleep".into(), args: Vec::new() };
    let global = Arguments::try_parse_from(["supervisor", "--socket", "/tmp/s.sock", "ping"]).unwrap().global;
    spec(&global, &loaded.settings, program, 4).unwrap_or_else(|failure| panic!("{}", failure.message))
}

#[test]
fn the_defaults_recycle_nothing_and_write_log_files_into_the_state_directory() {
    let spec = spec_of(&[]);
    assert_eq!(spec.recycling, Recycling::default());
    assert_eq!((spec.canary, spec.hang_timeout), (Duration::from_secs(2), Duration::from_secs(10)));
    assert!(!spec.cpu_affinity && !spec.log_json && spec.processes.is_empty());
    let directory = PathBuf::from(".bellwether/logs");
    assert_eq!(spec.log_files, Some(LogFiles { directory, max_bytes: 10_000_000, count: 5 }));
    assert_eq!(spec.admin_listen, None, "a program of the user's has nothing to say there");
}

#[test]
fn every_setting_of_the_supervisor_reaches_the_specification() {
    let spec = spec_of(&[
        ("supervisor.workers", "-1"),
        ("supervisor.canary", "0s"),
        ("supervisor.hang_timeout", "3s"),
        ("supervisor.max_memory", "1MiB"),
        ("supervisor.max_requests", "7"),
        ("supervisor.max_age", "1h"),
        ("supervisor.cron", "30 4 * * *"),
        ("supervisor.cpu_affinity", "true"),
        ("log.format", "json"),
        ("log.files", "false"),
    ]);
    assert_eq!(spec.workers, 3);
    assert_eq!((spec.canary, spec.hang_timeout), (Duration::ZERO, Duration::from_secs(3)));
    let expected = Recycling {
        max_memory: Some(1 << 20),
        max_requests: Some(7),
        max_age: Some(Duration::from_secs(3600)),
        schedule: Some("30 4 * * *".parse().unwrap()),
    };
    assert_eq!(spec.recycling, expected);
    assert!(spec.cpu_affinity && spec.log_json);
    assert_eq!(spec.log_files, None);
}

#[test]
fn a_kind_of_process_becomes_as_many_processes_as_it_counts() {
    let tables =
        r#"[{ name = "mailer", command = ["mail", "", "-v"] }, { name = "jobs", command = ["jobs"], count = 2 }]"#;
    let processes = spec_of(&[("supervisor.process", tables)]).processes;
    let shown: Vec<_> = processes
        .iter()
        .map(|process| {
            let [(name, number)] = process.env.as_slice() else { panic!("one variable: {:?}", process.env) };
            assert_eq!(name, "PROCESS_ID");
            assert!(!process.notifies);
            (process.name.as_str(), process.program.to_str().unwrap(), process.args.len(), number.to_str().unwrap())
        })
        .collect();
    assert_eq!(shown, [("mailer", "mail", 2, "0"), ("jobs-0", "jobs", 0, "0"), ("jobs-1", "jobs", 0, "1")]);
}
