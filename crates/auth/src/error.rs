//! Why there is no key, or why a token is worth nothing.

use std::{io, path::PathBuf};

/// What can go wrong. The first three end a start; all others mean the same to a client, 401 with one
/// and the same body, and differ only for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file cannot be read or made.
    #[error("the key file {path} cannot be used: {cause}")]
    KeyUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Others than the file's owner may read the key, so it may be known already.
    #[error("the key file {path} has mode {mode:04o}; others must have no access to it (chmod 600)")]
    KeyTooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else than one Ed25519 key.
    #[error("the key file {path} is not an Ed25519 private key in PKCS#8 PEM")]
    KeyInvalid {
        /// The file.
        path: PathBuf,
    },
    /// Not a token, or one of a kind that is never issued here.
    #[error("not an access token: {0}")]
    Malformed(&'static str),
    /// Signed with a key that is not ours, or not any more.
    #[error("the token names an unknown key")]
    UnknownKey,
    /// Not signed by the key it names, or changed since.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// A claim is missing, of the wrong type or for somebody else.
    #[error("the token's claims are not acceptable")]
    BadClaims,
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// Too early, by more than clocks differ.
    #[error("the token is not valid yet")]
    NotYetValid,
}
