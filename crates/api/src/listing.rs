//! The query of a product listing, parsed once into what the store and the cache take.

use std::fmt::Write as _;

use serde::Deserialize;
use store::{Cursor, ListFilter, MAX_LIMIT};

use crate::error::ApiError;

const DEFAULT_LIMIT: u32 = 20;
const MAX_SEARCH_CHARACTERS: usize = 100;
const MAX_SLUG_BYTES: usize = 100;

/// `?category=&q=&limit=&cursor=` as it came. Unknown parameters are refused, so that a misspelt filter is not an unfiltered list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListingParameters {
    category: Option<String>,
    q: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// A validated listing query in one canonical spelling: equal lists have equal cache keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListingQuery(ListFilter);

impl TryFrom<ListingParameters> for ListingQuery {
    type Error = ApiError;

    fn try_from(parameters: ListingParameters) -> Result<Self, ApiError> {
        let limit = parameters.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(ApiError::bad_request(format!("limit must be between 1 and {MAX_LIMIT}")));
        }
        Ok(Self(ListFilter {
            category: parameters.category.filter(|slug| !slug.is_empty()).map(parse_slug).transpose()?,
            q: parameters.q.as_deref().map(parse_search).transpose()?.flatten(),
            limit,
            after: parameters.cursor.as_deref().filter(|cursor| !cursor.is_empty()).map(parse_cursor).transpose()?,
        }))
    }
}

impl ListingQuery {
    pub(crate) fn filter(&self) -> &ListFilter {
        &self.0
    }

    /// The cache key of this list.
    pub(crate) fn cache_key(&self) -> String {
        let mut key = format!("{}:", self.0.limit);
        // A slug and a cursor cannot hold a colon, so the search, which may, comes last and keys cannot collide.
        let _ = write!(key, "{}:", self.0.category.as_deref().unwrap_or_default());
        if let Some(cursor) = &self.0.after {
            let _ = write!(key, "{cursor}");
        }
        let _ = write!(key, ":{}", self.0.q.as_deref().unwrap_or_default());
        key
    }

    /// The address of the page that starts at `cursor`, for the `Link` header.
    pub(crate) fn path_with_cursor(&self, cursor: &str) -> String {
        let mut path = format!("/api/v1/products?limit={}", self.0.limit);
        if let Some(category) = &self.0.category {
            let _ = write!(path, "&category={}", percent_encoded(category));
        }
        if let Some(search) = &self.0.q {
            let _ = write!(path, "&q={}", percent_encoded(search));
        }
        let _ = write!(path, "&cursor={}", percent_encoded(cursor));
        path
    }
}

fn parse_slug(slug: String) -> Result<String, ApiError> {
    let plain = slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if plain && slug.len() <= MAX_SLUG_BYTES {
        Ok(slug)
    } else {
        Err(ApiError::bad_request("category must be a slug: lower-case letters, digits and hyphens"))
    }
}

fn parse_search(text: &str) -> Result<Option<String>, ApiError> {
    if text.chars().count() > MAX_SEARCH_CHARACTERS {
        return Err(ApiError::bad_request(format!("q must not be longer than {MAX_SEARCH_CHARACTERS} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::bad_request("q must not contain control characters"));
    }
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    Ok((!words.is_empty()).then(|| words.join(" ")))
}

fn parse_cursor(cursor: &str) -> Result<Cursor, ApiError> {
    cursor.parse().map_err(|_| ApiError::bad_request("cursor is not one that a list gave out"))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(category: &str, q: &str, limit: Option<u32>) -> ListingParameters {
        ListingParameters { category: Some(category.into()), q: Some(q.into()), limit, cursor: None }
    }

    #[test]
    fn spellings_of_one_search_share_a_cache_key() {
        let one = ListingQuery::try_from(parameters("tea", "  Green   TEA ", None)).unwrap();
        let other = ListingQuery::try_from(parameters("tea", "green tea", Some(20))).unwrap();
        assert_eq!(one.cache_key(), other.cache_key());
    }

    #[test]
    fn a_search_cannot_imitate_another_list() {
        let search = ListingQuery::try_from(parameters("", "x", None)).unwrap();
        let tricky = ListingQuery::try_from(parameters("", ":x", None)).unwrap();
        assert_ne!(search.cache_key(), tricky.cache_key());
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for bad in [
            parameters("tea", "", Some(0)),
            parameters("tea", "", Some(101)),
            parameters("Tea:1", "", None),
            parameters("", "a\u{0}b", None),
            parameters("", &"x".repeat(101), None),
        ] {
            assert!(ListingQuery::try_from(bad).is_err());
        }
    }

    #[test]
    fn the_next_address_is_encoded() {
        let query = ListingQuery::try_from(parameters("tea", "50% & ü", None)).unwrap();
        assert_eq!(
            query.path_with_cursor("abc"),
            "/api/v1/products?limit=20&category=tea&q=50%25%20%26%20%C3%BC&cursor=abc"
        );
    }
}
