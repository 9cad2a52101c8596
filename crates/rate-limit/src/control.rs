//! Looking at counters and changing them by hand, and hearing of it when others do.

use std::time::Duration;

use redis_store::{Bytes, Error, Event, Reply, Script};

use crate::{
    decision::PolicyState,
    flusher::Shared,
    identity::Identity,
    limiter::Limiter,
    metrics::{Call, Script as Called},
    policies::PolicySet,
    request::Request,
    script::{Answer, Control},
    state::queue::{Batch, Group},
};

/// How much of a server is looked at for counters that would live for ever, 500 keys at a time.
const PAGES: usize = 100;

impl Limiter {
    /// What is left of each policy, without counting anything.
    pub async fn peek(&self, request: &Request) -> Result<Vec<PolicyState>, Error> {
        let shared = self.shared();
        let mut states = Vec::new();
        for request in request.by_lane() {
            let batch = Batch::of(Group::new(request, 0));
            let (script, keys, arguments) = shared.calls.check(&batch, &shared.policies);
            let reply = shared.store.run(script, &keys, &arguments).await?;
            let expected = Error::Unexpected { expected: "the script's numbers" };
            let mut answer = Answer::parse(reply, &batch.groups).ok_or(expected)?;
            answer.next();
            for part in &batch.groups[0].request.parts {
                let rule = shared.policies.rule(part.rule);
                let (left, wait) = (answer.next(), answer.next());
                states.push(PolicyState {
                    remaining: left.max(0) as u64,
                    reset: u64::try_from(wait).ok().map(Duration::from_micros),
                    violated: left < rule.units(1) as i64,
                    ..PolicyState::new(rule, *part, 0)
                });
            }
        }
        Ok(states)
    }

    /// The policies under which a request is blocked, by number, and for how long still.
    pub async fn blocked(&self, request: &Request) -> Result<Vec<(u8, Duration)>, Error> {
        let shared = self.shared();
        let script = Script::new(include_str!("scripts/blocked.lua"));
        let expected = Error::Unexpected { expected: "a time for each counter" };
        let mut blocked = Vec::new();
        for request in request.by_lane() {
            let keys = shared.calls.keys(request.parts.iter());
            let times = shared.store.run(&script, &keys, &[]).await?.into_array()?;
            if times.len() != request.parts.len() {
                return Err(expected);
            }
            for (part, time) in request.parts.iter().zip(times) {
                let milliseconds = match time {
                    Reply::Integer(time) => u64::try_from(time).unwrap_or(0),
                    _ => return Err(expected),
                };
                if milliseconds > 0 {
                    let policy = shared.policies.rule(part.rule).policy;
                    blocked.push((policy, Duration::from_millis(milliseconds)));
                }
            }
        }
        Ok(blocked)
    }

    /// Forgets what has been counted, and ends a block.
    pub async fn reset(&self, request: &Request) -> Result<(), Error> {
        self.change(request, Control::Reset).await
    }

    /// Denies everything for so long, at least a millisecond. What has been counted until then is forgotten.
    pub async fn block(&self, request: &Request, duration: Duration) -> Result<(), Error> {
        self.change(request, Control::Block(duration)).await
    }

    /// Ends a block; without one nothing changes.
    pub async fn unblock(&self, request: &Request) -> Result<(), Error> {
        self.change(request, Control::Unblock).await
    }

    /// The name of a counter that would live for ever, if there is one among the first 50,000 keys of the server, on a cluster of one of
    /// its servers: none of ours is made so, and one that lost its lifetime gets it back when it is counted in next.
    pub async fn find_immortal(&self) -> Result<Option<String>, Error> {
        let shared = self.shared();
        let script = Script::new(include_str!("scripts/audit.lua"));
        let mut cursor = Bytes::from_static(b"0");
        for _ in 0..PAGES {
            let arguments = [cursor.into(), shared.calls.pattern().into()];
            let page = shared.store.run(&script, &[], &arguments).await?.into_array()?;
            let Ok([next, found]) = <[Reply; 2]>::try_from(page) else {
                return Err(Error::Unexpected { expected: "a cursor and names" });
            };
            if let Some(name) = found.into_array()?.into_iter().next() {
                return Ok(Some(String::from_utf8_lossy(&name.into_bytes()?).into_owned()));
            }
            cursor = next.into_bytes()?;
            if *cursor == *b"0" {
                break;
            }
        }
        Ok(None)
    }

    /// The policies of `set` for somebody who is known by the hash that logs show: 32 hexadecimal digits.
    pub fn request_of_digits(&self, set: PolicySet, digits: &str) -> Option<Request> {
        let identity: Identity = digits.parse().ok()?;
        Some(self.policies().request_of(set, identity))
    }

    async fn change(&self, request: &Request, control: Control) -> Result<(), Error> {
        let shared = self.shared();
        for request in request.by_lane() {
            let (script, keys, arguments) = shared.calls.control(&request, control);
            let reply = shared.store.run(script, &keys, &arguments).await;
            shared.metrics.called(Called::Control, Call::from(&reply));
            reply?;
        }
        for part in &request.parts {
            shared.state().forget(&shared.policies, part.identity);
        }
        Ok(())
    }
}

impl Shared {
    /// Hears what others change. What is missed is found out within a second, when denials are no longer believed.
    pub(crate) async fn listen_for_ever(&self) {
        let mut news = self.store.subscribe(vec![self.calls.channel().to_owned()]);
        loop {
            if let Event::Message { payload, .. } = news.next().await {
                let digits = payload.chunks_exact(32).filter_map(|digits| str::from_utf8(digits).ok());
                for identity in digits.filter_map(|digits| digits.parse().ok()) {
                    self.state().forget(&self.policies, identity);
                }
            }
        }
    }
}

impl<T> From<&Result<T, Error>> for Call {
    fn from(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Answered,
            Err(Error::Indeterminate) => Self::Indeterminate,
            Err(_) => Self::Failed,
        }
    }
}
