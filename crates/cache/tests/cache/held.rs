//! A load that is held between its look into the database and its return: everything may happen meanwhile (trap T1).

use std::sync::{Arc, mpsc};

use cache::{Hit, LoadError, Loaded, Options};
use tokio::sync::oneshot;

use crate::harness::{Database, SOON, Worker};

/// A read and its loader.
pub(crate) struct Held {
    has_looked: mpsc::Receiver<()>,
    go_on: oneshot::Sender<()>,
    answer: mpsc::Receiver<Result<Hit<u64>, LoadError>>,
}

impl Held {
    /// Reads `key`, and returns when the loader has looked into the database.
    pub(crate) fn start(worker: &Worker, database: &Arc<Database>, key: &str) -> Self {
        let held = Self::start_with(worker, database, key, &[], |_| {});
        held.looked();
        held
    }

    /// Reads `key`, whose value will carry `tags`; the loader may not run before somebody else's has ended.
    pub(crate) fn start_with(
        worker: &Worker,
        database: &Arc<Database>,
        key: &str,
        tags: &[&str],
        change: fn(&mut Options),
    ) -> Self {
        let (go_on, goes_on) = oneshot::channel();
        let (looked, has_looked) = mpsc::channel();
        let (database, key) = (Arc::clone(database), key.to_owned());
        let tags: Vec<String> = tags.iter().map(|&tag| tag.to_owned()).collect();
        let answer = worker.start(async move |parts| {
            let mut options = parts.options;
            change(&mut options);
            let row = key.clone();
            let load = async move || {
                let value = database.load(&row);
                looked.send(()).unwrap();
                let _ = goes_on.await;
                Ok::<_, LoadError>(Loaded { tags, ..value.into() })
            };
            parts.prices.get_or_load(&key, &options, load).await
        });
        Self { has_looked, go_on, answer }
    }

    /// Waits until the loader has looked into the database.
    pub(crate) fn looked(&self) {
        self.has_looked.recv_timeout(SOON).unwrap();
    }

    /// What the read is answered with.
    pub(crate) fn answer(&self) -> Hit<u64> {
        self.answer.recv_timeout(SOON).unwrap().unwrap()
    }

    /// Lets the loader return, if it still runs.
    pub(crate) fn let_go(self) {
        let _ = self.go_on.send(());
    }

    /// Lets the loader return, and waits for the answer.
    pub(crate) fn finish(self) -> Hit<u64> {
        self.go_on.send(()).unwrap();
        self.answer.recv_timeout(SOON).unwrap().unwrap()
    }
}
