//! Conditional requests (RFC 9110 §13): does `If-None-Match` or `If-Match` name this entity tag?

/// Whether `If-None-Match` holds `etag` (weak comparison, RFC 9110 §13.1.2), so that the answer is 304.
pub(crate) fn none_match_hits(header: &str, etag: &str) -> bool {
    header.trim() == "*" || tags(header).any(|tag| opaque(tag) == opaque(etag))
}

/// What `If-Match` asks of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// `*`, or no header: any version will do.
    Any,
    /// One version, taken from the entity tag `"v<version>"`.
    Version(i64),
    /// Tags that no version of ours ever had: the write cannot match.
    Never,
}

impl IfMatch {
    /// Reads `If-Match` (strong comparison, RFC 9110 §13.1.1). Several tags cannot all be the current version; the highest
    /// one is kept, because a version only grows.
    pub(crate) fn parse(header: Option<&str>) -> Self {
        let Some(header) = header else { return Self::Any };
        if header.trim() == "*" {
            return Self::Any;
        }
        tags(header).filter_map(version_of).max().map_or(Self::Never, Self::Version)
    }
}

/// The entity tag of a version.
pub(crate) fn version_tag(version: i64) -> String {
    format!("\"v{version}\"")
}

fn version_of(tag: &str) -> Option<i64> {
    let version: i64 = tag.strip_prefix("\"v")?.strip_suffix('"')?.parse().ok()?;
    (version_tag(version) == tag).then_some(version)
}

fn tags(header: &str) -> impl Iterator<Item = &str> {
    header.split(',').map(str::trim).filter(|tag| !tag.is_empty())
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_compares_weakly_and_takes_lists() {
        for (header, hits) in [
            ("\"v3\"", true),
            ("W/\"v3\"", true),
            ("\"v1\", \"v3\"", true),
            ("*", true),
            ("\"v33\"", false),
            ("v3", false),
            ("", false),
        ] {
            assert_eq!(none_match_hits(header, "\"v3\""), hits, "{header}");
        }
    }

    #[test]
    fn if_match_is_strong_and_only_our_own_spelling_is_a_version() {
        for (header, expected) in [
            (None, IfMatch::Any),
            (Some("*"), IfMatch::Any),
            (Some("\"v7\""), IfMatch::Version(7)),
            (Some("\"v2\", \"v7\""), IfMatch::Version(7)),
            (Some("W/\"v7\""), IfMatch::Never),
            (Some("\"v07\""), IfMatch::Never),
            (Some("\"v+7\""), IfMatch::Never),
            (Some("rubbish"), IfMatch::Never),
            (Some(""), IfMatch::Never),
        ] {
            assert_eq!(IfMatch::parse(header), expected, "{header:?}");
        }
    }
}
