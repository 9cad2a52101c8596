//! Layering, messages, and what is generated from the table of keys, through the public interface.

mod generated;
mod tables;

use std::collections::HashMap;
use std::path::PathBuf;

use crate::{Assignment, FileChoice, Loaded, Origin, Problems, Settings, Sources, json_schema, load, template};

/// A directory with a configuration file, and the other sources of one case.
struct Case {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), sources: Sources::default() }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.write("bellwether.toml", text);
        self.sources.file = FileChoice::Named(path);
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The variable `name` with the path of a file in the case's directory.
    fn env_path(self, name: &str, file: &str) -> Self {
        let path = self.directory.path().join(file).display().to_string();
        self.env(name, &path)
    }

    fn flag(mut self, by: &str, key: &str, value: &str) -> Self {
        self.sources.flags.push(Assignment::new(key, value, by));
        self
    }

    fn set(self, text: &str) -> Self {
        let Assignment { key, value, by } = Assignment::from_set(text).unwrap();
        self.flag(&by, &key, &value)
    }

    fn up(mut self, key: &str, value: &str) -> Self {
        self.sources.defaults.push(Assignment::new(key, value, "up"));
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        load(&self.sources)
    }

    fn shown(&self, key: &str) -> (String, String) {
        let loaded = self.load().unwrap_or_else(|problems| panic!("{problems}"));
        let row = loaded.shown().into_iter().find(|row| row.key == key).unwrap();
        let origin = self.without_directory(&row.origin.to_string());
        (row.value.map(|value| value.to_string()).unwrap_or_default(), origin)
    }

    /// All messages, with the directory's name taken out.
    fn problems(&self) -> String {
        let problems = self.load().expect_err("a case that is wrong");
        self.without_directory(&problems.to_string())
    }

    fn without_directory(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

#[test]
fn without_any_source_the_settings_are_the_defaults() {
    let loaded = Case::new().load().unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert_eq!(loaded.origin("http.keep_alive"), Origin::Default);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_commands_own_beats_the_default() {
    let key = "supervisor.listen";
    let case = Case::new();
    assert_eq!(case.shown(key), ("[\"0.0.0.0:8080\"]".into(), "default".into()));
    let case = case.up(key, "127.0.0.1:1");
    assert_eq!(case.shown(key), ("[\"127.0.0.1:1\"]".into(), "default of `up`".into()));
    let case = case.file("[supervisor]\nlisten = [\"127.0.0.1:2\"]\n");
    assert_eq!(case.shown(key), ("[\"127.0.0.1:2\"]".into(), "bellwether.toml:2".into()));
    let case = case.env("PORT", "3");
    assert_eq!(case.shown(key), ("[\"127.0.0.1:3\"]".into(), "env PORT".into()));
    let case = case.env("BELLWETHER__SUPERVISOR__LISTEN", "127.0.0.1:4, unix:/run/a.sock");
    let both = "[\"127.0.0.1:4\", \"unix:/run/a.sock\"]";
    assert_eq!(case.shown(key), (both.into(), "env BELLWETHER__SUPERVISOR__LISTEN".into()));
    let case = case.flag("--listen", key, "127.0.0.1:5");
    assert_eq!(case.shown(key), ("[\"127.0.0.1:5\"]".into(), "flag --listen".into()));
    let case = case.set("supervisor.listen=[\"127.0.0.1:6\"]");
    assert_eq!(case.shown(key), ("[\"127.0.0.1:6\"]".into(), "flag --set".into()));
}

#[test]
fn customary_variables_and_twins_set_their_keys() {
    let cases = [
        ("WEB_CONCURRENCY", "3", "supervisor.workers", "3"),
        ("BELLWETHER__SUPERVISOR__WORKERS", "-1", "supervisor.workers", "\"-1\""),
        ("HOST", "::1", "supervisor.listen", "[\"[::1]:8080\"]"),
        ("HOST", "localhost", "supervisor.listen", "[\"127.0.0.1:8080\"]"),
        ("REDIS_URL", "redis://h:1", "redis.url", "\"redis://h:1\""),
        ("DATABASE_URL", "postgres://u:p@h/d", "database.url", "\"postgres://u:***@h/d\""),
        ("RUST_LOG", "info,api=debug", "log.level", "\"info,api=debug\""),
        ("TRUSTED_PROXIES", "10.0.0.0/8,::1", "http.trusted_proxies", "[\"10.0.0.0/8\", \"::1/128\"]"),
        ("BELLWETHER__HTTP__TRUSTED_PROXIES", "[\"10.1.2.3\"]", "http.trusted_proxies", "[\"10.1.2.3/32\"]"),
        ("BELLWETHER__SUPERVISOR__LISTEN", "[::1]:80", "supervisor.listen", "[\"[::1]:80\"]"),
        ("BELLWETHER__HTTP__EXPOSE_WORKER", "true", "http.expose_worker", "true"),
        ("BELLWETHER__CACHE__L1_BUDGET", "32MiB", "cache.l1_budget", "\"32MiB\""),
        ("BELLWETHER__REDIS__PREFIX", "10", "redis.prefix", "\"10\""),
        ("BELLWETHER__LOG__FORMAT", "\"json\"", "log.format", "\"json\""),
        ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b", "supervisor.state_dir", "\"/var/lib/a\""),
        ("WEB_CONCURRENCY", "", "supervisor.workers", "\"max\""),
    ];
    for (name, value, key, expected) in cases {
        assert_eq!(Case::new().env(name, value).shown(key).0, expected, "{name}={value}");
    }
}

#[test]
fn host_and_port_make_one_address() {
    let case = Case::new().env("HOST", "127.0.0.1").env("PORT", "3000");
    let expected = ("[\"127.0.0.1:3000\"]".into(), "env HOST and PORT".into());
    assert_eq!(case.shown("supervisor.listen"), expected);
}

#[test]
fn what_lives_in_the_state_directory_follows_it() {
    let case = Case::new().set("supervisor.state_dir=/srv/50%?");
    assert_eq!(case.shown("database.url").0, "\"sqlite:///srv/50%25%3F/bellwether.db\"");
    assert_eq!(case.shown("auth.token_key_file").0, "\"/srv/50%?/token.key\"");
    let case = case.env("DATABASE_URL", "sqlite://elsewhere.db");
    assert_eq!(case.shown("database.url").0, "\"sqlite://elsewhere.db\"");
}

#[test]
fn workers_of_a_user_of_their_own_keep_what_they_own_in_a_directory_of_their_own() {
    let case = Case::new().set("supervisor.state_dir=/srv/a").set("supervisor.user=nobody");
    assert_eq!(case.shown("database.url").0, "\"sqlite:///srv/a/data/bellwether.db\"");
    assert_eq!(case.shown("auth.token_key_file").0, "\"/srv/a/data/token.key\"");
    let case = case.set("auth.token_key_file=/etc/token.key");
    assert_eq!(case.shown("auth.token_key_file").0, "\"/etc/token.key\"");
    let supervisor = case.load().unwrap().settings.supervisor;
    assert_eq!(supervisor.workers_dir(), PathBuf::from("/srv/a/data"));
}

#[test]
fn every_mistake_of_a_file_is_reported_at_its_place() {
    let case = Case::new().file(
        "\
workers = 4
[supervisor]
workres = 4
kill_timeout = \"30\"
\tready_timeout = 30
[htpp]
keep_alive = \"5s\"
[rate_limit]
enabled = \"yes\"
headers = [\"draft-10\", \"modern\"]
[cache]
l1_budget = \"lots\"
",
    );
    let expected = "\
bellwether.toml:1:1: unknown key `workers`
  |
1 | workers = 4
  | ^^^^^^^ did you mean `supervisor.workers`?

bellwether.toml:3:1: unknown key `supervisor.workres`
  |
3 | workres = 4
  | ^^^^^^^ did you mean `workers`?

bellwether.toml:4:16: `supervisor.kill_timeout`: expected a duration such as \"30s\", \"300ms\" or \"1h30m\", found `30`
  |
4 | kill_timeout = \"30\"
  |                ^^^^

bellwether.toml:5:18: `supervisor.ready_timeout`: expected a duration such as \"30s\", \"300ms\" or \"1h30m\", found `30`
  |
5 | \tready_timeout = 30
  | \t                ^^

bellwether.toml:6:2: unknown section `htpp`
  |
6 | [htpp]
  |  ^^^^ did you mean `http`?

bellwether.toml:9:11: `rate_limit.enabled`: expected true or false, found `yes`
  |
9 | enabled = \"yes\"
  |           ^^^^^

bellwether.toml:10:24: `rate_limit.headers`: expected \"draft-10\", \"draft-7\", \"draft-6\" or \"legacy\", found `modern`
   |
10 | headers = [\"draft-10\", \"modern\"]
   |                        ^^^^^^^^

bellwether.toml:12:13: `cache.l1_budget`: expected a size such as \"64MiB\", found `lots`
   |
12 | l1_budget = \"lots\"
   |             ^^^^^^";
    assert_eq!(case.problems(), expected);
}

#[test]
fn broken_syntax_does_not_hide_mistakes_on_other_lines() {
    let problems =
        Case::new().file("[http]\nkeep_alive =\nmax_connections = \"many\"\n[log]\nlevl = \"info\"\n").problems();
    for part in [
        "bellwether.toml:2:",
        "bellwether.toml:3:19: `http.max_connections`",
        "bellwether.toml:5:1: unknown key `log.levl`",
    ] {
        assert!(problems.contains(part), "{part} is missing in\n{problems}");
    }
    assert!(!problems.contains("`http.keep_alive`"), "the broken line is reported twice:\n{problems}");
}

#[test]
fn mistakes_outside_of_files_are_shown_the_same_way() {
    let case = Case::new()
        .env("BELLWETHER__SUPERVISOR__WORKRES", "s3cret")
        .env("PORT", "http")
        .env("BELLWETHER__HTTP__KEEP_ALIVE", "5 apples")
        .env("TRUSTED_PROXIES", "10.0.0.0/8,proxy")
        .flag("--workers", "supervisor.workers", "some")
        .set("supervisor.workres=4")
        .set("kep_alive=4");
    let expected = "\
environment: `supervisor.listen`: expected a port between 0 and 65535, found `http`
 |
 | PORT=http
 |      ^^^^

environment: `http.trusted_proxies`: expected a network such as \"10.0.0.0/8\", found `proxy`
 |
 | TRUSTED_PROXIES=10.0.0.0/8,proxy
 |                            ^^^^^

environment: `http.keep_alive`: expected a duration such as \"30s\", \"300ms\" or \"1h30m\", found `5 apples`
 |
 | BELLWETHER__HTTP__KEEP_ALIVE=5 apples
 |                              ^^^^^^^^

environment: no key has the variable `BELLWETHER__SUPERVISOR__WORKRES`
 |
 | BELLWETHER__SUPERVISOR__WORKRES=…
 | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ did you mean `BELLWETHER__SUPERVISOR__WORKERS`?

command line: `supervisor.workers`: expected a number of workers, \"max\", or \"-N\" for N fewer than there are cores, found `some`
 |
 | --workers some
 |           ^^^^

command line: unknown key `supervisor.workres`
 |
 | --set supervisor.workres=…
 |       ^^^^^^^^^^^^^^^^^^ did you mean `supervisor.workers`?

command line: unknown key `kep_alive`
 |
 | --set kep_alive=…
 |       ^^^^^^^^^ did you mean `http.keep_alive`?";
    assert_eq!(case.problems(), expected);
}

#[test]
fn nothing_is_suggested_for_a_value_or_for_a_key_that_resembles_none() {
    let problems = Case::new().set("http.zebra=1").env("BELLWETHER__HTTP__ZEBRA", "1").set("log.format=jsn").problems();
    assert!(!problems.contains("did you mean"), "{problems}");
}

#[test]
fn rules_over_values_point_at_what_gave_the_value() {
    let case = Case::new()
        .file("[supervisor]\nlisten = []\n[cache]\nttl = \"0s\"\n")
        .env("BELLWETHER__REDIS__PREFIX", "{a}")
        .set("http.max_connections=0");
    let problems = case.problems();
    let expected = [
        "bellwether.toml:2:10: `supervisor.listen`: at least one address is needed",
        "bellwether.toml:4:7: `cache.ttl`: has to be longer than 0s",
        "environment: `redis.prefix`: is at most 32 letters",
        " | --set http.max_connections 0",
    ];
    for part in expected {
        assert!(problems.contains(part), "{part} is missing in\n{problems}");
    }
}

#[test]
fn what_recycles_and_logs_has_the_promised_defaults() {
    let expected = [
        ("supervisor.canary", "\"2s\""),
        ("supervisor.hang_timeout", "\"10s\""),
        ("supervisor.max_memory", "\"0B\""),
        ("supervisor.max_requests", "0"),
        ("supervisor.max_age", "\"0s\""),
        ("supervisor.cron", ""),
        ("supervisor.cpu_affinity", "false"),
        ("supervisor.process", "[]"),
        ("log.files", "true"),
        ("log.file_size", "\"10MB\""),
        ("log.file_count", "5"),
    ];
    for (key, value) in expected {
        assert_eq!(Case::new().shown(key), (value.to_owned(), "default".to_owned()), "{key}");
    }
    let zero = Case::new().file("[supervisor]\nmax_memory = \"0\"\ncanary = \"0s\"\n").load().unwrap().settings;
    assert_eq!((zero.supervisor.max_memory.bytes(), zero.supervisor.canary.is_zero()), (0, true));
}

#[test]
fn what_recycles_and_logs_is_refused_where_it_makes_no_sense() {
    let cases = [
        ("supervisor.hang_timeout=0s", "`supervisor.hang_timeout`: has to be longer than 0s"),
        ("supervisor.kill_timeout=25d", "`supervisor.kill_timeout`: is at most 24d"),
        ("log.file_count=0", "`log.file_count`: has to be at least 1"),
        ("log.file_size=0", "`log.file_size`: has to be larger than 0"),
        ("supervisor.max_memory=lots", "expected a size such as"),
        ("supervisor.cron=61 * * * *", "found `61 * * * *`: value must be in range 0..=59; found 61"),
        ("supervisor.cron=\"30 4 * *\"", "found `30 4 * *`: missing days of week"),
    ];
    for (assignment, expected) in cases {
        let problems = Case::new().set(assignment).problems();
        assert!(problems.contains(expected), "{expected} is missing in\n{problems}");
    }
    let problems = Case::new().file("[supervisor]\ncron = \"0 25 * * *\"\n").problems();
    assert!(problems.starts_with("bellwether.toml:2:8: `supervisor.cron`: expected a cron expression"), "{problems}");
    let hasty = Case::new().set("supervisor.hang_timeout=1s").load().unwrap().warnings;
    assert!(hasty[0].message.contains("healthy ones may be killed"), "{hasty:?}");
}

#[test]
fn secrets_come_from_files_and_credentials_but_not_from_flags() {
    let case = Case::new().env_path("REDIS_URL_FILE", "url").env_path("CREDENTIALS_DIRECTORY", "");
    case.write("url", "redis://:s3cret@a:1\n");
    case.write("database.url", "postgres://u:s3cret@b/d");
    case.write("auth.token_key", "key");
    let settings = case.load().unwrap().settings;
    assert_eq!(settings.redis.url.expose(), "redis://:s3cret@a:1");
    assert_eq!(settings.database.url.expose(), "postgres://u:s3cret@b/d");
    assert_eq!(settings.auth.token_key_file, case.directory.path().join("auth.token_key"));
    assert_eq!(case.shown("redis.url"), ("\"redis://:***@a:1\"".into(), "file url".into()));

    let problems = Case::new().set("redis.url=redis://:s3cret@a:1").problems();
    assert!(problems.contains("a password on the command line is seen by everyone"), "{problems}");
    let problems = Case::new().env("REDIS_URL", "redis://a").env("REDIS_URL_FILE", "/b").problems();
    assert!(problems.contains("REDIS_URL and REDIS_URL_FILE are both set"), "{problems}");
    let problems = Case::new().env("DATABASE_URL_FILE", "/nowhere/url").problems();
    assert!(problems.starts_with("/nowhere/url: `database.url`: cannot be read"), "{problems}");
}

#[test]
fn no_output_shows_a_secret() {
    let cases = [
        Case::new().file("[redis]\nurl = \"redis://:s3cret@a\"\nprefix = \"redis://:s3cret@a{}\"\n"),
        Case::new().env("REDIS_URL", "redis//:s3cret@a"),
        Case::new().set("database.url=mysql://u:s3cret@a"),
        Case::new().set("redis.url=redis://:s3cret@a"),
        Case::new().file("[redis]\nurl = \":s3cret@a\"\n"),
        Case::new().file("[redis]\nurl = \"redis://:s3cret@a\n"),
    ];
    for case in cases {
        let problems = case.problems();
        assert!(!problems.contains("s3cret"), "{problems}");
    }
    let loaded = Case::new().env("REDIS_URL", "redis://:s3cret@a").load().unwrap();
    assert!(!format!("{loaded:?} {:?}", loaded.shown()).contains("s3cret"));
}

#[test]
fn a_named_file_has_to_exist_and_the_usual_ones_do_not() {
    let mut case = Case::new();
    case.sources.file = FileChoice::Named(case.directory.path().join("none.toml"));
    assert_eq!(case.problems(), "none.toml: there is no such file");
    let second = case.write("second.toml", "[log]\nlevel = \"debug\"\n");
    case.sources.file = FileChoice::FirstOf(vec![case.directory.path().join("none.toml"), second.clone()]);
    assert_eq!(case.load().unwrap().file, Some(second));
}

#[test]
fn the_usual_places_are_the_working_directory_then_systemds_then_etc() {
    let environment = [("CONFIGURATION_DIRECTORY".to_owned(), "/a:/b".to_owned())];
    let FileChoice::FirstOf(places) = FileChoice::usual(None, &environment) else { panic!("several places") };
    let expected = ["bellwether.toml", "/a/bellwether.toml", "/b/bellwether.toml", "/etc/bellwether/bellwether.toml"];
    assert_eq!(places, expected.map(PathBuf::from));
}

#[test]
fn what_is_allowed_and_hardly_meant_is_warned_about() {
    let case = Case::new().file("[http]\ntrusted_proxies = [\"0.0.0.0/0\"]\n[redis]\nurl = \"redis://:s3cret@a\"\n");
    let warnings = case.load().unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings[0].code, "http/proxies-everybody");
    assert!(warnings[1].to_string().contains("chmod 600") && warnings[1].to_string().ends_with("[secrets/readable]"));
}

#[test]
fn settings_survive_the_way_to_a_child() {
    let case = Case::new()
        .file(&template())
        .env("DATABASE_URL", "postgres://u:p@h/d")
        .set("supervisor.workers=-2")
        .set("supervisor.user=nobody")
        .set("http.trusted_proxies=10.0.0.0/8")
        .set("supervisor.process=[{ name = \"mailer\", command = [\"mail\", \"\"], count = 2 }]")
        .set("supervisor.cron=30 4 * * *")
        .set("supervisor.max_memory=512MiB")
        .set("log.files=false")
        .set("cache.ttl=1500ms");
    let settings = case.load().unwrap().settings;
    assert_eq!(Settings::from_json(&settings.to_json()).unwrap(), settings);
    assert_eq!(Settings::from_json(&Settings::default().to_json()).unwrap(), Settings::default());
    let broken = Settings::from_json("{\"http\":{\"keep_alive\":5}}").unwrap_err().to_string();
    assert!(broken.contains("`http.keep_alive`: expected a duration"), "{broken}");
}

#[test]
fn the_schema_knows_every_key_and_nothing_else() {
    let schema = json_schema();
    let loaded = Case::new().load().unwrap();
    let mut known = HashMap::new();
    for (section, body) in schema["properties"].as_object().unwrap() {
        assert_eq!(body["additionalProperties"], false, "{section}");
        for (name, key) in body["properties"].as_object().unwrap() {
            assert!(key["description"].is_string(), "{section}.{name}");
            known.insert(format!("{section}.{name}"), key.clone());
        }
    }
    let keys: Vec<_> = loaded.shown().into_iter().map(|row| row.key).collect();
    assert_eq!(keys.len(), known.len());
    assert!(keys.iter().all(|key| known.contains_key(*key)));
    assert_eq!(known["http.keep_alive"]["default"], "5s");
    assert_eq!(known["rate_limit.policy"]["items"]["additionalProperties"], false);
    assert_eq!(known["supervisor.process"]["items"]["required"], serde_json::json!(["name", "command"]));
}
