//! Signs whatever it is given, with the right key.

use std::{fs, path::Path};

use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use serde_json::Value;

use super::{HOUR, now, vendor};
use crate::Keys;

/// Holds the key, and the parts of a good token to start from.
pub(super) struct Forger {
    pub(super) pair: Ed25519KeyPair,
    pub(super) header: Value,
    pub(super) payload: Value,
}

impl Forger {
    pub(super) fn new(path: &Path, keys: &Keys) -> Self {
        let pem = pem::parse(fs::read_to_string(path).unwrap()).unwrap();
        let token = keys.issue(&vendor(), HOUR, now());
        let part = |index| serde_json::from_slice(&decode(token.split('.').nth(index).unwrap())).unwrap();
        Self { pair: Ed25519KeyPair::from_pkcs8(pem.contents()).unwrap(), header: part(0), payload: part(1) }
    }

    pub(super) fn sign(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let signature = encode(self.pair.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }

    /// With one member of the header set to something else.
    pub(super) fn header(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[name] = value;
        self.sign(&header.to_string(), &self.payload.to_string())
    }

    /// With one claim set to something else.
    pub(super) fn claim(&self, name: &str, value: Value) -> String {
        let mut payload = self.payload.clone();
        payload[name] = value;
        self.sign(&self.header.to_string(), &payload.to_string())
    }

    /// Signed as HS256 under any key.
    pub(super) fn hmac(&self, key: &[u8]) -> String {
        let mut header = self.header.clone();
        header["alg"] = "HS256".into();
        let [header, payload] = [&header, &self.payload].map(|part| encode(part.to_string().as_bytes()));
        let message = format!("{header}.{payload}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
        format!("{message}.{}", encode(tag.as_ref()))
    }
}

/// A JSON object without one of its members.
pub(super) fn without(object: &Value, name: &str) -> String {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove(name).unwrap();
    object.to_string()
}

/// The digits of base64url.
pub(super) const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64url without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            text.push(ALPHABET[(group >> (18 - 6 * position)) as usize & 63] as char);
        }
    }
    text
}

pub(super) fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut group, mut bits) = (0u32, 0);
    for letter in text.bytes() {
        group = group << 6 | ALPHABET.iter().position(|known| *known == letter).unwrap() as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
        }
    }
    bytes
}
