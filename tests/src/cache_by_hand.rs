//! `supervisor cache` against a running cluster.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use test_support::eventually;
use test_support::http::Request;

use crate::cluster::Cluster;

/// How long the news of an invalidation may take to a busy worker.
const NEWS: Duration = Duration::from_secs(10);

/// `supervisor cache` with the configuration and state of this cluster.
fn cache(cluster: &Cluster, arguments: &[&str]) -> Output {
    let state_dir = cluster.state_dir();
    let file = state_dir.with_file_name("bellwether.toml");
    let place = ["--config", file.to_str().unwrap(), "--state-dir", state_dir.to_str().unwrap()];
    cluster.command(&[&["cache"][..], arguments, &place].concat())
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// How the answer to a path was found.
fn found(cluster: &Cluster, path: &str) -> String {
    let answer = cluster.send(&Request::get(path));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("cache-status").unwrap().to_owned()
}

/// Reads until all workers answer from memory.
fn warm(cluster: &Cluster, path: &str) {
    eventually(NEWS, || (0..10).all(|_| found(cluster, path) == "bellwether; hit; detail=l1"));
}

#[test]
fn an_entry_is_looked_at_and_forgotten_by_key_by_tag_and_with_all_others() {
    let cluster = Cluster::builder().workers(2).configuration("[rate_limit]\nenabled = false\n").start();
    let list = "/api/v1/products?limit=1";
    let page: Value = serde_json::from_slice(&cluster.send(&Request::get(list)).body).unwrap();
    let item = &page["items"][0];
    let (id, vendor) = (item["id"].as_str().unwrap(), item["vendor"]["id"].as_str().unwrap());
    let product = format!("/api/v1/products/{id}");
    warm(&cluster, &product);
    warm(&cluster, list);

    let shown: Value = serde_json::from_str(&stdout(&cache(&cluster, &["get", "product", id, "--json"]))).unwrap();
    assert_eq!((shown["schema"].as_str(), &shown["key"]), (Some("bellwether.cache/v1"), &id.into()));
    let tags = shown["entry"]["tags"].as_array().unwrap();
    assert!(
        tags.contains(&format!("product:{id}").into()) && tags.contains(&format!("vendor:{vendor}").into()),
        "{shown}"
    );
    assert!(stdout(&cache(&cluster, &["get", "product", id])).starts_with("state       fresh\n"));
    assert_eq!(stdout(&cache(&cluster, &["get", "product", "nobody"])), "nothing is cached for product nobody\n");

    let is_loaded_again = |path: &str| {
        let mut answers = (0..20).map(|_| found(&cluster, path));
        answers.any(|answer| answer.contains("fwd=miss"))
    };
    let told = stdout(&cache(&cluster, &["del", "product", id]));
    assert_eq!(told, format!("forgotten by every worker: product {id}\n"));
    assert!(is_loaded_again(&product));
    warm(&cluster, &product);
    stdout(&cache(&cluster, &["flush", "--tag", &format!("vendor:{vendor}")]));
    assert!(is_loaded_again(&product));
    warm(&cluster, &product);
    assert_eq!(found(&cluster, list), "bellwether; hit; detail=l1", "the list does not carry the vendor's tag");
    assert_eq!(stdout(&cache(&cluster, &["flush", "--all"])), "forgotten by every worker: product, list\n");
    assert!(is_loaded_again(&product) && is_loaded_again(list));

    // Workers tell their figures every second.
    let known = |name: &str, figure: &str| {
        let stats: Value = serde_json::from_str(&stdout(&cache(&cluster, &["stats", "--json"]))).unwrap();
        assert_eq!((&stats["schema"], &stats["workers"]), (&"bellwether.cache-stats/v1".into(), &2.into()));
        let namespaces = stats["namespaces"].as_array().unwrap();
        let namespace = namespaces.iter().find(|namespace| namespace["name"] == name);
        namespace.and_then(|namespace| namespace[figure].as_u64()).unwrap_or_default()
    };
    eventually(NEWS, || known("product", "memory") >= 10 && known("product", "loaded") >= 3);
    assert!(stdout(&cache(&cluster, &["stats"])).starts_with("NAMESPACE"));
}

#[test]
fn a_warm_cache_answers_the_first_client_without_the_database() {
    let cluster = Cluster::builder().workers(1).configuration("[rate_limit]\nenabled = false\n").start();
    let page: Value = serde_json::from_slice(&cluster.send(&Request::get("/api/v1/products?limit=100")).body).unwrap();
    let told = stdout(&cache(&cluster, &["warm", "--rate", "100000"]));
    let count: usize = told.strip_suffix(" products are cached\n").and_then(|count| count.parse().ok()).unwrap();
    assert!(count >= 100, "{told}");
    for item in page["items"].as_array().unwrap() {
        let path = format!("/api/v1/products/{}", item["id"].as_str().unwrap());
        assert_eq!(found(&cluster, &path), "bellwether; hit; detail=l2");
    }
}

#[test]
fn what_does_not_exist_is_said_and_nothing_is_done() {
    let cluster = Cluster::builder().workers(1).start();
    let refused = cache(&cluster, &["del", "prodct", "a"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(told.contains("there is no namespace `prodct`; there are: product, list"), "{told}");
}
