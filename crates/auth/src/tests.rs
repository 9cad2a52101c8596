//! Keys on disk, and tokens that must be refused.

mod corpus;
mod forged;
mod forger;
mod key_file;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use uuid::Uuid;

use crate::{Error, Identity, Keys, Role};

const HOUR: Duration = Duration::from_secs(3600);

/// A moment whose seconds are round.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn fresh() -> (TempDir, PathBuf, Keys) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token.pem");
    let keys = Keys::load_or_create(&path).unwrap();
    (directory, path, keys)
}

fn vendor() -> Identity {
    Identity { subject: "anna".into(), role: Role::Vendor, vendor_id: Some(Uuid::from_u128(7)) }
}

#[test]
fn a_token_says_what_it_was_issued_for() {
    let (_directory, _, keys) = fresh();
    let admin = Identity { subject: "ö".into(), role: Role::Admin, vendor_id: None };
    for identity in [vendor(), admin] {
        let claims = keys.verify(&keys.issue(&identity, HOUR, now()), now()).unwrap();
        assert_eq!(claims.identity, identity);
        assert_eq!((claims.issued_at, claims.expires_at), (1_800_000_000, 1_800_003_600));
    }
    let ids = [(); 2].map(|()| keys.verify(&keys.issue(&vendor(), HOUR, now()), now()).unwrap().token_id);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_token_is_valid_for_its_lifetime_and_the_leeway() {
    let (_directory, _, keys) = fresh();
    let token = keys.issue(&vendor(), HOUR, now());
    let at = |seconds: i64| {
        let offset = Duration::from_secs(seconds.unsigned_abs());
        keys.verify(&token, if seconds < 0 { now() - offset } else { now() + offset })
    };
    for valid in [-30, 0, 3600, 3629] {
        assert!(at(valid).is_ok(), "{valid}");
    }
    for early in [-31, -1_800_000_000] {
        assert!(matches!(at(early), Err(Error::NotYetValid)), "{early}");
    }
    for late in [3630, 1_000_000_000] {
        assert!(matches!(at(late), Err(Error::Expired)), "{late}");
    }
}

#[test]
fn a_token_of_another_key_is_refused() {
    let (_directory, _, keys) = fresh();
    let (_other_directory, _, other) = fresh();
    assert!(matches!(keys.verify(&other.issue(&vendor(), HOUR, now()), now()), Err(Error::UnknownKey)));
}

#[test]
fn debug_output_shows_no_key() {
    let (_directory, path, keys) = fresh();
    let text = std::fs::read_to_string(path).unwrap();
    let secret = text.lines().nth(1).unwrap();
    let shown = format!("{keys:?}");
    assert!(shown.contains("key_id") && !shown.contains(secret) && shown.len() < 80, "{shown}");
}
