//! The first minutes with the program: what goes wrong is said in one line, with the exit code that scripts look at.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use test_support::http::Request;
use test_support::{Binaries, Postgres, free_port};

use crate::cluster::{Cluster, run, supervisor, supervisor_by};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn up_ends_with_a_curl_line_that_returns_a_product() {
    let cluster = Cluster::builder().workers(2).start();
    let line = test_support::eventually(Duration::from_secs(20), || {
        let output = cluster.output();
        output.lines().find(|line| line.contains("curl") && line.contains("/api/v1/products/")).map(str::to_owned)
    });
    let url =
        line.split_whitespace().map(|word| word.trim_matches('\'')).find(|word| word.starts_with("http://")).unwrap();
    let path = url.strip_prefix(&format!("http://{}", cluster.address)).unwrap_or_else(|| panic!("{line}"));
    let answer = cluster.get(path);
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\"price\""), "{}", answer.text());
}

#[test]
fn up_serves_from_postgresql_when_it_is_told_to() {
    let database = Postgres::shared().database();
    let cluster = Cluster::builder().workers(2).environment("DATABASE_URL", &database).start();
    let products = cluster.products(3);
    assert_eq!(products.len(), 3);
    assert_eq!(Postgres::shared().execute(&database, "select count(*) from product").trim(), "1000");
    let id = products[0]["id"].as_str().unwrap();
    let request = Request::new("PATCH", &format!("/api/v1/products/{id}"));
    let answer =
        cluster.send(&request.header("authorization", &format!("Bearer {}", cluster.token())).json("{\"stock\":4}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(cluster.get(&format!("/api/v1/products/{id}")).text().contains("\"stock\":4"));
}

#[test]
fn a_taken_port_is_named_with_its_holder() {
    let directory = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let output = run(
        directory.path(),
        &["up", "--listen", &address, "--seed", "none", "--admin-listen", &format!("127.0.0.1:{}", free_port())],
    );
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(73), "{message}");
    assert!(message.contains(&address), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
}

#[test]
fn without_redis_to_be_found_the_line_to_type_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let output = supervisor()
        .current_dir(directory.path())
        .env("PATH", directory.path())
        .args(["up", "--listen", &format!("127.0.0.1:{}", free_port())])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{message}");
    assert!(message.contains("redis-server"), "{message}");
}

#[test]
fn a_full_disk_is_named_with_the_file_that_does_not_fit_and_nothing_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let full = directory.path().join("full");
    std::fs::create_dir(&full).unwrap();
    // Its own table of mounts ends with it.
    let script = "mount -t tmpfs -o size=4k tmpfs \"$0\" || exit 99; head -c 8192 /dev/zero >\"$0/data\"; exec \"$@\"";
    let mut command = supervisor_by("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&full).arg(Binaries::supervisor());
    command.args(["start", "--listen", &format!("127.0.0.1:{}", free_port()), "--state-dir"]);
    command.arg(directory.path().join("state")).arg("--pid-file").arg(full.join("pid"));
    let output =
        command.args(["--", "touch"]).arg(directory.path().join("started")).stdin(Stdio::null()).output().unwrap();
    let message = text(&output.stderr);
    if output.status.code() == Some(99) || message.contains("unshare failed") {
        println!("skipped: only root can fill a disk of its own");
        return;
    }
    assert_eq!(output.status.code(), Some(73), "{message}");
    assert!(message.contains("full/pid: No space left on device"), "{message}");
    assert!(!directory.path().join("started").exists());
}

#[test]
fn misspelt_flags_and_keys_get_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    let flag = run(directory.path(), &["up", "--wrokers", "2"]);
    assert_eq!(flag.status.code(), Some(2));
    assert!(text(&flag.stderr).contains("--workers"), "{}", text(&flag.stderr));
    let file = directory.path().join("bellwether.toml");
    std::fs::write(&file, "[supervisor]\nworkres = 4\n[http]\nkeep_alive = \"5 parsecs\"\n").unwrap();
    let key = run(directory.path(), &["config", "check"]);
    let message = text(&key.stderr);
    assert_eq!(key.status.code(), Some(78), "{message}");
    assert!(message.contains("bellwether.toml:2:1"), "{message}");
    assert!(message.contains("workers"), "{message}");
    assert!(message.contains("bellwether.toml:4:"), "all errors are reported together: {message}");
}

#[test]
fn commands_without_a_supervisor_say_so() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["status", "ping", "stop"] {
        let output = run(directory.path(), &[command]);
        assert_eq!(output.status.code(), Some(3), "{command}: {}", text(&output.stderr));
    }
}

#[test]
fn any_program_that_takes_sockets_can_be_supervised() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = supervisor();
    command
        .current_dir(directory.path())
        .args(["start", "--workers", "2", "--listen", &address, "--state-dir", "state", "--"])
        .arg(Binaries::misbehaving())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut guarded = test_support::GuardedChild::spawn(&mut command).unwrap();
    let endpoint: std::net::SocketAddr = address.parse().unwrap();
    let mut pids = std::collections::BTreeSet::new();
    test_support::eventually(Duration::from_secs(20), || {
        if let Ok(answer) = test_support::http::get_blocking(endpoint, "/") {
            pids.insert(answer.text());
        }
        pids.len() == 2
    });
    guarded.signal(test_support::Signal::SIGTERM);
    assert_eq!(guarded.wait_within(Duration::from_secs(10)).unwrap().code(), Some(0));
}
