//! The private key on disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use aws_lc_rs::signature::Ed25519KeyPair;
use pem::Pem;
use uuid::Uuid;

use crate::Error;

/// The label of a PKCS#8 key (RFC 7468).
const LABEL: &str = "PRIVATE KEY";

/// More than any key file needs.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// The PKCS#8 document in the file at `path`, made first if there is none.
pub(crate) fn load_or_create(path: &Path) -> Result<Vec<u8>, Error> {
    match load(path) {
        Err(Error::KeyUnreadable { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(|cause| unreadable(path, cause))?;
            load(path)
        }
        loaded => loaded,
    }
}

fn load(path: &Path) -> Result<Vec<u8>, Error> {
    let text = read_private(path)?;
    let invalid = || Error::KeyInvalid { path: path.to_owned() };
    let pem = pem::parse(text).map_err(|_| invalid())?;
    if pem.tag() == LABEL { Ok(pem.into_contents()) } else { Err(invalid()) }
}

fn read_private(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(|cause| unreadable(path, cause))?;
    // Of the file that is open, not of whatever the path names by now.
    let metadata = file.metadata().map_err(|cause| unreadable(path, cause))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::KeyTooOpen { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(|cause| unreadable(path, cause))?;
    Ok(text)
}

/// Writes a new key beside `path` and links it there, so that of several processes one wins and
/// nobody ever reads half a key.
fn create(path: &Path) -> io::Result<()> {
    let key = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).map_err(|_| no_randomness())?;
    let text = pem::encode(&Pem::new(LABEL, key.as_ref()));
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", Uuid::now_v7()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let linked = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    fs::remove_file(&draft).and(linked)
}

fn no_randomness() -> io::Error {
    io::Error::other("no key could be generated")
}

fn unreadable(path: &Path, cause: io::Error) -> Error {
    Error::KeyUnreadable { path: path.to_owned(), cause }
}
