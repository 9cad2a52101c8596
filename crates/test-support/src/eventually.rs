//! Waiting for something to become true, with a bound: what tests do instead of sleeping.

use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// What a condition may return: a `bool`, an `Option` whose value is wanted, or a `Result` whose error tells why not yet.
pub trait Outcome {
    /// What the wait returns.
    type Value;

    /// The value, or what was seen instead of it.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("the condition was still false".into()) }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "there was still no value".into())
    }
}

impl<T, E: Display> Outcome for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Looks at `condition` every 5 ms until it holds, and returns its value.
///
/// # Panics
/// When it does not hold within `deadline`: with the caller's place and what was seen last.
#[track_caller]
pub fn eventually<O: Outcome>(deadline: Duration, mut condition: impl FnMut() -> O) -> O::Value {
    let start = Instant::now();
    loop {
        match condition().outcome() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() >= deadline => give_up(Location::caller(), deadline, &seen),
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

/// [`eventually`] for conditions that await something; it follows tokio's clock, paused or not.
///
/// # Panics
/// When the condition does not hold within `deadline`. A condition that never resolves is cut off at the deadline too.
#[track_caller]
pub fn eventually_async<O, F>(deadline: Duration, mut condition: F) -> impl Future<Output = O::Value>
where
    O: Outcome,
    F: AsyncFnMut() -> O,
{
    let caller = Location::caller();
    async move {
        let end = tokio::time::Instant::now() + deadline;
        let mut seen = String::from("the first look had not ended");
        loop {
            match tokio::time::timeout_at(end, condition()).await.map(Outcome::outcome) {
                Ok(Ok(value)) => return value,
                Ok(Err(_)) if tokio::time::Instant::now() < end => tokio::time::sleep(INTERVAL).await,
                Ok(Err(last)) => give_up(caller, deadline, &last),
                Err(_) => {
                    seen.push_str(" when time was up");
                    give_up(caller, deadline, &seen)
                }
            }
        }
    }
}

fn give_up(caller: &Location<'_>, deadline: Duration, seen: &str) -> ! {
    panic!("{caller}: not within {deadline:?}: {seen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_the_first_success_is_returned() {
        let mut looks = 0;
        let value = eventually(Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "eventually.rs")]
    fn giving_up_names_the_place_of_the_call() {
        eventually(Duration::ZERO, || false);
    }

    #[test]
    #[should_panic(expected = "not within 0ns: 3 workers of 4")]
    fn giving_up_tells_what_was_seen_last() {
        eventually(Duration::ZERO, || Err::<(), _>("3 workers of 4"));
    }

    #[tokio::test]
    #[should_panic(expected = "time was up")]
    async fn a_condition_that_never_resolves_is_cut_off() {
        eventually_async(Duration::from_millis(10), async || std::future::pending::<bool>().await).await;
    }
}
