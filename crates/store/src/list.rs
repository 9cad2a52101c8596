//! Pages of a listing: what is asked for, and where the next page starts.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// The largest page, in items. A filter that asks for more gets this many.
pub const MAX_LIMIT: u32 = 100;

/// Which products, and which page of them. Products come in order of their ids, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFilter {
    /// The slug of a category. An unknown one has no products.
    pub category: Option<String>,
    /// Part of a product's name, in any case. `%` and `_` mean themselves.
    pub q: Option<String>,
    /// Items on the page, 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// The `next` of the page before.
    pub after: Option<Cursor>,
}

impl Default for ListFilter {
    fn default() -> Self {
        Self { category: None, q: None, limit: 20, after: None }
    }
}

/// One page, and the cursor of the next unless this is the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as the filter's limit.
    pub items: Vec<T>,
    /// `None` on the last page.
    pub next: Option<Cursor>,
}

/// The place between two items of a listing. Opaque to clients; every place has one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor(Uuid);

/// Text that is no cursor this program gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this listing")]
pub struct InvalidCursor;

/// Names the format, so that another order of listings can have cursors of its own.
const PREFIX: &str = "p1";

impl Cursor {
    pub(crate) fn after(id: Uuid) -> Self {
        Self(id)
    }

    pub(crate) fn id(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}", self.0.simple())
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 32).ok_or(InvalidCursor)?;
        let cursor = Uuid::try_parse(digits).map(Self).map_err(|_| InvalidCursor)?;
        // One spelling only: a cursor is part of cache keys.
        if cursor.to_string() == text { Ok(cursor) } else { Err(InvalidCursor) }
    }
}

/// `q` as a pattern that finds it anywhere, with [`LIKE_ESCAPE`] before everything that `LIKE`
/// would read as a wildcard.
pub(crate) fn contains_pattern(q: &str) -> String {
    let mut pattern = String::with_capacity(q.len() + 2);
    pattern.push('%');
    for letter in q.to_lowercase().chars() {
        if matches!(letter, '%' | '_' | LIKE_ESCAPE) {
            pattern.push(LIKE_ESCAPE);
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

/// Not the customary backslash: the two databases disagree about it inside a string literal.
pub(crate) const LIKE_ESCAPE: char = '!';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_one_spelling_and_nothing_else_is_one() {
        let cursor = Cursor::after(Uuid::from_u128(0x0194_1f29_7c00_7aaa_8bbb_0123_4567_89ab));
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor));
        let id = cursor.id().to_string();
        for refused in [
            "",
            "p1",
            "p1zz",
            &text[1..],
            &text.to_uppercase(),
            &format!("{text}0"),
            &id,
            &format!("p1{id}"),
            "p1' OR 1",
        ] {
            assert_eq!(refused.parse::<Cursor>(), Err(InvalidCursor), "{refused:?}");
        }
    }

    #[test]
    fn wildcards_in_a_search_mean_themselves() {
        assert_eq!(contains_pattern("100% Ö_!"), "%100!% ö!_!!%");
    }
}
