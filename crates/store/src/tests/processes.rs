//! What several processes do to one database at once. SQLite's locks are between processes, so tasks
//! of one would prove little: the test's own executable is started again, to run [`child`].

use std::process::{Child, Command, Stdio};

use super::{Database, first_products, number, open};
use crate::{ProductChanges, Schema, Seed, SeedOutcome, Store, UpdateOutcome};

const JOB: &str = "BELLWETHER_STORE_TEST_JOB";
const URL: &str = "BELLWETHER_STORE_TEST_URL";
const PROCESSES: usize = 8;
const WRITES: i64 = 60;

/// Runs a job in eight processes at once; each says on stdout what it did.
fn in_processes(job: &str, url: &str) -> Vec<String> {
    let start = |_| -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::processes::child", "--ignored", "--nocapture", "--quiet"])
            .env(JOB, job)
            .env(URL, url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<Child> = (0..PROCESSES).map(start).collect();
    let ended = children.into_iter().map(|child| child.wait_with_output().unwrap());
    ended
        .map(|output| {
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{text}");
            text.lines().find_map(|line| line.strip_prefix("did: ")).unwrap_or_else(|| panic!("{text}")).to_owned()
        })
        .collect()
}

#[tokio::test]
#[ignore = "started by the tests of this module, in a process of its own"]
async fn child() {
    let (Ok(job), Ok(url)) = (std::env::var(JOB), std::env::var(URL)) else { return };
    let store = open(&url, 2).await;
    let did = match job.as_str() {
        "migrate" => store.migrate().await.unwrap().len().to_string(),
        "seed" => match store.seed_if_empty(super::SMALL, |_, _| {}).await.unwrap() {
            SeedOutcome::Seeded { .. } => "1".to_owned(),
            SeedOutcome::NotEmpty => "0".to_owned(),
        },
        "write" => write(&store).await.to_string(),
        other => panic!("{other}"),
    };
    println!("\ndid: {did}");
}

async fn write(store: &Store) -> i64 {
    let id = first_products(store, 1).await[0].id;
    for stock in 0..WRITES {
        let changes = ProductChanges { stock: Some(stock), ..ProductChanges::default() };
        let outcome = store.products().update(id, &changes, None).await.unwrap();
        assert!(matches!(outcome, UpdateOutcome::Updated(_)));
        store.products().find(&id.into()).await.unwrap();
    }
    WRITES
}

fn sum(told: &[String]) -> i64 {
    told.iter().map(|did| did.parse::<i64>().unwrap()).sum()
}

#[tokio::test]
async fn eight_processes_that_migrate_at_once_apply_each_migration_once() {
    for database in Database::both() {
        let told = in_processes("migrate", &database.url);
        let store = database.open().await;
        assert_eq!(store.schema().await.unwrap(), Schema::Current);
        assert_eq!(sum(&told), number(&store, "SELECT count(*) FROM seaql_migrations").await);
    }
}

#[tokio::test]
async fn eight_processes_that_seed_at_once_fill_the_database_once() {
    for database in Database::both() {
        let store = database.migrated().await;
        let told = in_processes("seed", &database.url);
        assert_eq!(sum(&told), 1);
        assert_eq!(number(&store, "SELECT count(*) FROM product").await, 1_000);
        let again = store.seed_if_empty(Seed { number: 1, ..super::SMALL }, |_, _| {}).await.unwrap();
        assert_eq!(again, SeedOutcome::NotEmpty);
    }
}

#[tokio::test]
async fn eight_processes_that_write_at_once_all_succeed() {
    for database in Database::both() {
        let store = database.seeded().await;
        let told = in_processes("write", &database.url);
        let writes = PROCESSES as i64 * WRITES;
        assert_eq!(sum(&told), writes);
        assert_eq!(first_products(&store, 1).await[0].version, 1 + writes);
        assert_eq!(store.catalogue_version().await.unwrap(), 2 + writes);
    }
}
