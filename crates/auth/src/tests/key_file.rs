//! The private key on disk.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{HOUR, fresh, now, vendor};
use crate::{Error, Keys};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_new_key_is_private_and_found_again() {
    let (directory, path, keys) = fresh();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a draft was left behind");
    let again = Keys::load_or_create(&path).unwrap();
    assert!(again.verify(&keys.issue(&vendor(), HOUR, now()), now()).is_ok());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let (_directory, path, _) = fresh();
    for mode in [0o640, 0o604, 0o660, 0o601, 0o620] {
        set_mode(&path, mode);
        let refused = Keys::load_or_create(&path);
        assert!(matches!(refused, Err(Error::KeyTooOpen { mode: seen, .. }) if seen == mode), "{mode:o}");
    }
    set_mode(&path, 0o400);
    assert!(Keys::load_or_create(&path).is_ok());
}

#[test]
fn a_file_that_holds_no_ed25519_key_is_refused_and_kept() {
    let (_directory, path, _) = fresh();
    let good = fs::read_to_string(&path).unwrap();
    let cases = [
        String::new(),
        "secret".into(),
        good.replace("PRIVATE KEY", "PUBLIC KEY"),
        good.replacen("\nM", "\nN", 1),
        good.replacen('M', "AAAAM", 1),
        good[..good.len() / 2].to_owned(),
        "x".repeat(100_000),
    ];
    for text in cases {
        fs::write(&path, &text).unwrap();
        let refused = Keys::load_or_create(&path);
        assert!(matches!(refused, Err(Error::KeyInvalid { .. })), "{text:.80}: {refused:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_directory_that_does_not_exist_is_an_error_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert!(matches!(Keys::load_or_create(&missing.join("key.pem")), Err(Error::KeyUnreadable { .. })));
    assert!(!missing.exists());
}

#[test]
fn everybody_who_creates_the_key_at_once_gets_the_same_one() {
    for _ in 0..50 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.pem");
        let barrier = std::sync::Barrier::new(8);
        let all: Vec<Keys> = std::thread::scope(|scope| {
            let create = || {
                barrier.wait();
                Keys::load_or_create(&path).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let token = all[0].issue(&vendor(), HOUR, now());
        assert!(all.iter().all(|keys| keys.verify(&token, now()).is_ok()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
