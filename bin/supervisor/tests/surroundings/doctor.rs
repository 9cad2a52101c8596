//! The doctor on machines that are well, and on those that are not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_support::{Binaries, GuardedChild, Redis, eventually};

use crate::shell::{Ended, Shell};

/// A shell whose service lacks nothing.
fn well(redis: &Redis) -> Shell {
    assert!(Binaries::worker().exists());
    let shell = Shell::new();
    let url = redis.unix_url();
    let text = format!(
        "[supervisor]\nworkers = 1\nlisten = [\"0.0.0.0:0\"]\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n\
         [http]\nmax_connections = 64\n[redis]\nurl = \"{url}\"\n"
    );
    shell.write("bellwether.toml", &text);
    let migrated = shell.run(&["db", "migrate"]);
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
    shell
}

/// The check with that code.
fn check(document: &Value, code: &str) -> Value {
    let checks = document["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["code"] == code);
    found.unwrap_or_else(|| panic!("{code} is missing in {document:#}")).clone()
}

fn examined(ended: &Ended) -> Value {
    let document = ended.json();
    assert_eq!(document["schema"], "bellwether.doctor/v1");
    for check in document["checks"].as_array().unwrap() {
        let severity = check["severity"].as_str().unwrap();
        assert!(["ok", "note", "warning", "error"].contains(&severity), "{check}");
        assert!(check["fix"].is_string() || ["ok", "note"].contains(&severity), "{check} has no fix");
        assert!(!check["summary"].as_str().unwrap().is_empty(), "{check}");
    }
    document
}

#[test]
fn a_machine_that_is_well_has_no_error_and_every_check() {
    let shell = well(Redis::shared());
    let ended = shell.run(&["doctor", "--json"]);
    let document = examined(&ended);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{document:#}");
    let expected = [
        "configuration.file",
        "worker.executable",
        "worker.version",
        "redis.reachable",
        "redis.version",
        "redis.eviction",
        "database.reachable",
        "database.schema",
        "listen.address",
        "listen.proxies",
        "machine.files",
        "machine.all_files",
        "machine.processors",
        "state.directory",
        "state.space",
    ];
    for code in expected {
        assert_eq!(check(&document, code)["severity"], "ok", "{code} in {document:#}");
    }
    assert_eq!(check(&document, "supervisor.running")["severity"], "note");
    check(&document, "redis.latency");
    check(&document, "machine.backlog");
}

#[test]
fn every_fault_is_found_at_once_and_named_with_what_mends_it() {
    let redis = Redis::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let shell = well(&redis);
    fs::set_permissions(shell.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("supervisor.listen=[\"{}\"]", taken.local_addr().unwrap());
    let database = format!("sqlite://{}", shell.path("none.db").display());
    let flags = ["--set", &listen, "--set", "http.max_connections=4000000000", "--set", "supervisor.workers=10000"];
    let arguments = [&["doctor", "--json"], &flags[..]].concat();
    let ended = Ended::of(shell.command(&arguments).env("DATABASE_URL", database));
    let document = examined(&ended);
    assert_eq!(ended.code, 1);
    let expected = [
        ("redis.eviction", "error", "noeviction"),
        ("database.schema", "error", "supervisor db migrate"),
        ("listen.address", "error", "ss -ltnp"),
        ("listen.proxies", "warning", "trusted_proxies"),
        ("machine.files", "warning", "LimitNOFILE=4000000256"),
        ("machine.processors", "warning", "supervisor.workers"),
        ("state.directory", "warning", "chmod 700"),
    ];
    for (code, severity, fix) in expected {
        let check = check(&document, code);
        assert_eq!(check["severity"], severity, "{check}");
        assert!(check["fix"].as_str().unwrap().contains(fix), "{check}");
    }
    assert!(!shell.path("none.db").exists(), "looking has created a database");
}

#[test]
fn with_redis_gone_or_frozen_the_answer_comes_within_two_seconds() {
    let redis = Redis::start();
    let shell = well(&redis);
    let look = || {
        let begun = Instant::now();
        let ended = shell.run(&["doctor", "--json"]);
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
        let document = examined(&ended);
        assert_eq!(ended.code, 1);
        assert_eq!(check(&document, "redis.reachable")["severity"], "error");
        assert_eq!(check(&document, "database.schema")["severity"], "ok");
    };
    redis.stop();
    look();
    redis.kill();
    look();
}

#[test]
fn people_get_a_line_for_each_check_and_those_who_want_quiet_only_the_faults() {
    let redis = Redis::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let shell = well(&redis);
    let ended = shell.run(&["doctor"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stdout.is_ascii(), "no locale was set:\n{}", ended.stdout);
    let line = ended.stdout.lines().skip_while(|line| !line.starts_with("x redis.eviction")).nth(1);
    assert!(line.is_some_and(|line| line.trim_start().starts_with("fix: ")), "{}", ended.stdout);
    assert!(ended.stdout.lines().last().is_some_and(|line| line.contains("checks: 1 error")), "{}", ended.stdout);
    let unicode = Ended::of(shell.command(&["doctor", "--quiet"]).env("LANG", "C.UTF-8"));
    assert!(unicode.stdout.contains("✗ redis.eviction") && !unicode.stdout.contains('✓'), "{}", unicode.stdout);
}

#[test]
fn an_invalid_configuration_ends_with_78_as_everywhere() {
    let shell = Shell::new();
    shell.write("bellwether.toml", "[redis]\nulr = \"redis://h\"\n");
    let ended = shell.run(&["doctor", "--json"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (78, ""));
}

#[test]
fn without_the_worker_the_rest_is_examined_all_the_same() {
    let lonely = tempfile::tempdir().unwrap();
    let copy = lonely.path().join("supervisor");
    fs::copy(env!("CARGO_BIN_EXE_supervisor"), &copy).unwrap();
    let document = examined(&Shell::with(&copy).run(&["doctor", "--json"]));
    let missing = check(&document, "worker.executable");
    assert_eq!(missing["severity"], "error");
    assert!(missing["summary"].as_str().unwrap().contains(&lonely.path().join("worker").display().to_string()));
    check(&document, "machine.files");
}

#[test]
fn a_running_supervisor_is_recognised_with_its_address() {
    let shell = Shell::new();
    let address = format!("127.0.0.1:{}", test_support::free_port());
    let set = format!("supervisor.listen=[\"{address}\"]");
    let _supervisor = shell.start(&["--set", &set, "--workers", "1"], &["sleep", "1000"]);
    let document = eventually(Duration::from_secs(20), || {
        let document = examined(&shell.run(&["doctor", "--json", "--set", &set]));
        (check(&document, "supervisor.running")["severity"] == "ok").then_some(document)
    });
    assert_eq!(check(&document, "supervisor.version")["severity"], "ok");
    let listening = check(&document, "listen.address");
    assert_eq!(listening["severity"], "ok", "{listening}");
    assert!(listening["summary"].as_str().unwrap().contains(&address), "{listening}");
    assert!(Path::new(&shell.path(".bellwether")).is_dir());
}

#[test]
fn beside_a_running_up_its_private_redis_is_the_one_that_is_looked_at() {
    assert!(Binaries::worker().exists());
    let shell = Shell::new();
    let arguments =
        ["up", "--workers", "1", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--seed", "none"];
    let _up = GuardedChild::spawn(shell.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    let document = eventually(Duration::from_secs(30), || {
        let document = examined(&shell.run(&["doctor", "--json"]));
        let reached = |code| document["checks"].as_array().unwrap().iter().any(|check| check["code"] == code);
        (check(&document, "supervisor.running")["severity"] == "ok" && reached("redis.version")).then_some(document)
    });
    let reachable = check(&document, "redis.reachable");
    assert_eq!(reachable["severity"], "ok");
    assert!(reachable["summary"].as_str().unwrap().contains("redis.sock"), "{reachable}");
    let other = examined(&Ended::of(shell.command(&["doctor", "--json"]).env("REDIS_URL", "redis://127.0.0.1:1")));
    assert_eq!(check(&other, "redis.reachable")["severity"], "error", "one that is named is the one that is meant");
}
