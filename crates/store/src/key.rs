//! The two ways to name a product in a URL.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// The longest slug there is, in bytes.
const MAX_SLUG_BYTES: usize = 120;

/// A product's id or its slug, in one canonical form each, so that it can be a cache key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdOrSlug {
    /// A UUID, written with hyphens in either case.
    Id(Uuid),
    /// Lower-case letters, digits and single hyphens; see [`IdOrSlug::from_str`].
    Slug(Slug),
}

/// A string that can be a slug: 1 to 120 of `a-z`, `0-9` and `-`, no `-` at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slug(String);

impl Slug {
    /// The slug's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Neither a UUID nor a slug: no product can have this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a UUID nor a slug (a-z, 0-9 and -, at most {MAX_SLUG_BYTES} characters)")]
pub struct InvalidKey;

impl FromStr for IdOrSlug {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        // `Uuid` would take three other spellings, which are no ids of ours.
        if text.len() == 36
            && let Ok(id) = Uuid::try_parse(text)
        {
            return Ok(Self::Id(id));
        }
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let inside = !text.is_empty() && text.len() <= MAX_SLUG_BYTES;
        if inside && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-') {
            return Ok(Self::Slug(Slug(text.to_owned())));
        }
        Err(InvalidKey)
    }
}

impl From<Uuid> for IdOrSlug {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

impl fmt::Display for IdOrSlug {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(formatter),
            Self::Slug(slug) => formatter.write_str(&slug.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_any_case_is_one_key_and_everything_else_is_a_slug_or_refused() {
        let id = "01941f29-7c00-7aaa-8bbb-0123456789ab";
        let parsed: IdOrSlug = id.to_uppercase().parse().unwrap();
        assert_eq!(parsed.to_string(), id);
        assert!(matches!("blue-teapot-3f".parse(), Ok(IdOrSlug::Slug(_))));
        // A UUID without hyphens is a slug that no product has.
        assert!(matches!(id.replace('-', "").parse(), Ok(IdOrSlug::Slug(_))));
        for refused in ["", "-a", "a-", "A", "a_b", "a b", "é", "a'--", "a\0", &"a".repeat(121)] {
            assert_eq!(refused.parse::<IdOrSlug>(), Err(InvalidKey), "{refused:?}");
        }
    }
}
