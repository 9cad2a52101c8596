//! Replies, in bytes and integers.

use bytes::Bytes;
use fred::types::Resp3Frame;

use crate::error::Error;

/// What Redis answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: an absent key, or `false` or `nil` in a script.
    Nil,
    /// An integer; also booleans.
    Integer(i64),
    /// A string, a status such as `OK`, or a number that is no integer.
    Bytes(Bytes),
    /// A list; maps are flattened to alternating keys and values.
    Array(Vec<Reply>),
}

impl Reply {
    /// The integer it is.
    pub fn into_integer(self) -> Result<i64, Error> {
        match self {
            Self::Integer(value) => Ok(value),
            _ => Err(unexpected("an integer")),
        }
    }

    /// The string it is.
    pub fn into_bytes(self) -> Result<Bytes, Error> {
        match self {
            Self::Bytes(value) => Ok(value),
            _ => Err(unexpected("a string")),
        }
    }

    /// The string it is, or `None` when there is none.
    pub fn into_optional_bytes(self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Nil => Ok(None),
            other => other.into_bytes().map(Some),
        }
    }

    /// The list it is.
    pub fn into_array(self) -> Result<Vec<Reply>, Error> {
        match self {
            Self::Array(values) => Ok(values),
            _ => Err(unexpected("a list")),
        }
    }

    pub(crate) fn from_frame(frame: Resp3Frame) -> Result<Self, Error> {
        Ok(match frame {
            Resp3Frame::Null => Self::Nil,
            Resp3Frame::Number { data, .. } => Self::Integer(data),
            Resp3Frame::Boolean { data, .. } => Self::Integer(i64::from(data)),
            Resp3Frame::BlobString { data, .. }
            | Resp3Frame::SimpleString { data, .. }
            | Resp3Frame::BigNumber { data, .. }
            | Resp3Frame::VerbatimString { data, .. }
            | Resp3Frame::ChunkedString(data) => Self::Bytes(data),
            Resp3Frame::Double { data, .. } => Self::Bytes(data.to_string().into()),
            Resp3Frame::Array { data, .. } | Resp3Frame::Push { data, .. } => Self::list(data)?,
            Resp3Frame::Set { data, .. } => Self::list(data)?,
            Resp3Frame::Map { data, .. } => Self::list(data.into_iter().flat_map(|(key, value)| [key, value]))?,
            Resp3Frame::SimpleError { data, .. } => return Err(Error::Server(data.to_string())),
            Resp3Frame::BlobError { data, .. } => {
                return Err(Error::Server(String::from_utf8_lossy(&data).into_owned()));
            }
            Resp3Frame::Hello { .. } => return Err(unexpected("a reply")),
        })
    }

    fn list(frames: impl IntoIterator<Item = Resp3Frame>) -> Result<Self, Error> {
        let replies = frames.into_iter().map(Self::from_frame);
        replies.collect::<Result<_, _>>().map(Self::Array)
    }
}

fn unexpected(expected: &'static str) -> Error {
    Error::Unexpected { expected }
}
