//! The workspace's direction of dependencies, asserted from `cargo metadata`, and the shape of its crates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Who may use which of ours. A crate that is missing here fails the test: think about its place first.
const ALLOWED: &[(&str, &[&str])] = &[
    ("resilience", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    ("auth", &["resilience", "telemetry"]),
    ("supervise", &["resilience", "telemetry"]),
    ("redis-store", &["resilience", "telemetry"]),
    ("store", &["resilience", "telemetry"]),
    ("edge", &["resilience", "telemetry"]),
    ("rate-limit", &["redis-store", "resilience", "telemetry"]),
    ("cluster", &["redis-store", "telemetry"]),
    ("cache", &["redis-store", "resilience", "telemetry"]),
    ("api", &["edge", "rate-limit", "cache", "store", "auth", "redis-store", "resilience", "telemetry"]),
    ("supervisor", &["supervise", "config", "telemetry"]),
    (
        "worker",
        &[
            "api",
            "edge",
            "supervise",
            "config",
            "telemetry",
            "store",
            "cache",
            "cluster",
            "rate-limit",
            "redis-store",
            "auth",
            "resilience",
        ],
    ),
    ("test-support", &[]),
    ("tests", &["test-support"]),
];

/// Outside technologies and the only crates that may know them.
const OWNERS: &[(&[&str], &[&str])] = &[
    (&["actix-web", "actix-http", "actix-service", "actix-rt"], &["edge", "api"]),
    (&["fred"], &["redis-store"]),
    (&["nix"], &["supervise", "test-support"]),
    (&["sea-orm", "sea-orm-migration", "sqlx"], &["store"]),
    (&["anyhow"], &["supervisor", "worker", "api", "test-support", "tests"]),
];

#[test]
fn every_crate_depends_only_on_what_its_place_allows() {
    let workspace = Workspace::read();
    for (name, package) in &workspace.members {
        let allowed = ALLOWED.iter().find(|(member, _)| member == name).map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("{name} has no place in the layering table"));
        for dependency in direct(package).filter(|dependency| workspace.members.contains_key(dependency)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn each_outside_technology_has_its_one_crate() {
    let workspace = Workspace::read();
    for (technologies, owners) in OWNERS {
        for (name, package) in &workspace.members {
            for dependency in direct(package).filter(|dependency| technologies.contains(&dependency.as_str())) {
                assert!(owners.contains(&name.as_str()), "{name} must not know {dependency}: that is for {owners:?}");
            }
        }
    }
}

#[test]
fn the_supervisor_knows_no_runtime_and_no_http() {
    let reached = Workspace::read().reachable_from("supervisor");
    assert!(reached.contains("supervise"), "the graph was not read: {reached:?}");
    for banned in ["tokio", "actix-web", "actix-http", "fred", "sqlx", "sea-orm", "api", "edge", "store"] {
        assert!(!reached.contains(banned), "the supervisor reaches {banned}");
    }
}

#[test]
fn request_bodies_are_never_decompressed() {
    let workspace = Workspace::read();
    for name in ["actix-web", "actix-http"] {
        for feature in workspace.features_of(name) {
            assert!(!feature.starts_with("compress"), "{name} was built with {feature}");
        }
    }
}

#[test]
fn crates_look_like_crates() {
    let root = Workspace::root();
    for folder in ["crates", "bin"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
            assert!(
                manifest.contains(&format!("name = \"{name}\"")),
                "{folder}/{name}: the folder is the crate's name"
            );
            assert!(path.join("README.md").exists(), "{folder}/{name} has no README.md");
            if let Ok(lib) = std::fs::read_to_string(path.join("src/lib.rs")) {
                assert!(lib.lines().count() <= 30, "{folder}/{name}: lib.rs is a table of contents");
            }
        }
    }
}

#[test]
fn unsafe_code_lives_in_one_module_of_supervise() {
    let mut found = BTreeSet::new();
    for folder in ["crates", "bin", "tests"] {
        for (path, text) in rust_files(&Workspace::root().join(folder)) {
            if text.lines().any(|line| {
                line.trim_start().trim_start_matches("#![").trim_start_matches("#[").starts_with("allow(unsafe_code")
            }) {
                found.insert(path.strip_prefix(Workspace::root()).unwrap().display().to_string());
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.iter().all(|path| path.starts_with("crates/supervise/src/")), "{found:?}");
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for folder in ["crates", "bin", "tests"] {
        for (path, text) in rust_files(&Workspace::root().join(folder)) {
            let first = text.lines().next().unwrap_or_default();
            assert!(
                first.starts_with("//!") || first.starts_with("#![doc"),
                "{} begins with {first:?}",
                path.display()
            );
        }
    }
}

struct Workspace {
    members: BTreeMap<String, Value>,
    metadata: Value,
}

impl Workspace {
    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live one level below the root")
    }

    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--offline",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ])
            .current_dir(Self::root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let members = packages(&metadata)
            .filter(|package| package["source"].is_null())
            .map(|package| (text(&package["name"]), package.clone()))
            .collect();
        Self { members, metadata }
    }

    /// Names of all packages that `name` links, through normal dependencies alone.
    fn reachable_from(&self, name: &str) -> BTreeSet<String> {
        let names: BTreeMap<String, String> =
            packages(&self.metadata).map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for node in self.metadata["resolve"]["nodes"].as_array().unwrap() {
            let normal = node["deps"].as_array().unwrap().iter().filter(|dependency| {
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null())
            });
            edges.insert(text(&node["id"]), normal.map(|dependency| text(&dependency["pkg"])).collect());
        }
        let mut waiting: Vec<String> = vec![text(&self.members[name]["id"])];
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if seen.insert(id.clone()) {
                waiting.extend(edges.get(&id).into_iter().flatten().cloned());
            }
        }
        seen.iter().map(|id| names[id].clone()).collect()
    }

    fn features_of(&self, name: &str) -> Vec<String> {
        let id = packages(&self.metadata)
            .find(|package| package["name"] == name)
            .map(|package| text(&package["id"]))
            .unwrap();
        let nodes = self.metadata["resolve"]["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["id"] == id.as_str()).unwrap();
        node["features"].as_array().unwrap().iter().map(text).collect()
    }
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().unwrap().iter()
}

/// Normal dependencies as the manifest declares them.
fn direct(package: &Value) -> impl Iterator<Item = String> {
    let dependencies = package["dependencies"].as_array().unwrap().iter();
    let test_tool = matches!(package["name"].as_str(), Some("test-support" | "tests"));
    dependencies
        .filter(move |dependency| test_tool || dependency["kind"].is_null())
        .map(|dependency| text(&dependency["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn rust_files(folder: &Path) -> Vec<(std::path::PathBuf, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
    files
}
