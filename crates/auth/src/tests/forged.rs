//! Tokens that must be refused.

use std::{
    panic::catch_unwind,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{HOUR, corpus, forger::Forger, fresh, now, vendor};
use crate::Error;

#[test]
fn every_forged_token_is_refused_quickly_and_without_a_panic() {
    let (_directory, path, keys) = fresh();
    let forger = Forger::new(&path, &keys);
    let untouched = forger.sign(&forger.header.to_string(), &forger.payload.to_string());
    assert!(keys.verify(&untouched, now()).is_ok(), "the forger itself is broken");
    let corpus = corpus::all(&forger, &keys.issue(&vendor(), HOUR, now()));
    assert!(corpus.len() >= 100, "{}", corpus.len());
    for (name, token) in corpus {
        let started = Instant::now();
        let outcome = catch_unwind(|| keys.verify(&token, now()));
        assert!(matches!(outcome, Ok(Err(_))), "{name}: {outcome:?}");
        assert!(started.elapsed() < Duration::from_millis(100), "{name} took {:?}", started.elapsed());
    }
}

#[test]
fn the_reason_for_a_refusal_is_told_to_the_log() {
    let (_directory, path, keys) = fresh();
    let forger = Forger::new(&path, &keys);
    let verify = |token: String| keys.verify(&token, now()).unwrap_err();
    assert!(matches!(verify(forger.header("alg", "HS256".into())), Error::Malformed("another algorithm")));
    assert!(matches!(verify(forger.header("typ", "JWT".into())), Error::Malformed("another type")));
    assert!(matches!(verify(forger.header("kid", "x".into())), Error::UnknownKey));
    assert!(matches!(verify(forger.header("crit", json!(["exp"]))), Error::Malformed("unexpected header members")));
    assert!(matches!(verify(forger.claim("aud", "x".into())), Error::BadClaims));
    assert!(matches!(verify(forger.claim("exp", json!("1"))), Error::BadClaims));
    assert!(matches!(verify(forger.claim("exp", json!(1))), Error::BadClaims));
    let mut token = keys.issue(&vendor(), HOUR, now());
    token.replace_range(token.len() - 20..token.len() - 10, "AAAAAAAAAA");
    assert!(matches!(verify(token), Error::BadSignature));
}

#[test]
fn any_letter_changed_anywhere_is_noticed() {
    let (_directory, _, keys) = fresh();
    let good = keys.issue(&vendor(), HOUR, now());
    for position in 0..good.len() {
        for replacement in ["A", "_", ".", "="] {
            let mut changed = good.clone();
            changed.replace_range(position..=position, replacement);
            assert!(changed == good || keys.verify(&changed, now()).is_err(), "{replacement} at {position}");
        }
    }
}
