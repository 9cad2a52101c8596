//! Lua scripts and the arguments of commands.

use bytes::Bytes;
use fred::types::Value;

/// A Lua script, called by its digest.
#[derive(Debug, Clone)]
pub struct Script {
    pub(crate) source: Bytes,
    pub(crate) digest: Bytes,
}

impl Script {
    /// Takes the source; Redis learns it with the first call.
    pub fn new(source: &'static str) -> Self {
        Self { source: Bytes::from_static(source.as_bytes()), digest: Bytes::from(fred::util::sha1_hash(source)) }
    }
}

/// An argument of a script: bytes, or an integer written in decimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// Sent as it is.
    Bytes(Bytes),
    /// Sent as decimal digits.
    Integer(i64),
}

impl From<Bytes> for Arg {
    fn from(value: Bytes) -> Self {
        Self::Bytes(value)
    }
}

impl From<Vec<u8>> for Arg {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<&'static str> for Arg {
    fn from(value: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(value.as_bytes()))
    }
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<&Arg> for Value {
    fn from(arg: &Arg) -> Self {
        match arg {
            Arg::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Arg::Integer(integer) => Self::Integer(*integer),
        }
    }
}
