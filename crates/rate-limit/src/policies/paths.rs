//! Globs over paths: `*` within a segment, `**` over segments.

/// A compiled glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    /// What every path that matches begins with, which rules most globs out at once.
    prefix: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Exactly this text.
    Literal(String),
    /// Text with `*` for any characters: the pieces between the stars.
    Pieces(Vec<String>),
    /// Any number of segments, also none.
    Any,
}

impl Glob {
    /// Compiles `glob`, or says what is wrong with it.
    pub(crate) fn parse(glob: &str) -> Result<Self, &'static str> {
        let Some(path) = glob.strip_prefix('/') else {
            return Err("a path must begin with /");
        };
        if glob.contains(['?', '#']) {
            return Err("a path has no ? and no #");
        }
        let segments = without_last_slash(path).split('/').map(Segment::parse);
        let literal = glob.find('*').map_or(glob, |star| &glob[..star]);
        Ok(Self { prefix: without_last_slash(literal).to_owned(), segments: segments.collect::<Result<_, _>>()? })
    }

    /// Whether `path`, which begins with `/` and has no query, matches. A slash at its end makes no difference.
    pub(crate) fn matches(&self, path: &str) -> bool {
        if !path.starts_with(self.prefix.as_str()) {
            return false;
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        matches(&self.segments, without_last_slash(path))
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "**" => Ok(Self::Any),
            _ if text.contains("**") => Err("** must stand alone between slashes"),
            _ if text.contains('*') => Ok(Self::Pieces(text.split('*').map(str::to_owned).collect())),
            _ => Ok(Self::Literal(text.to_owned())),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::Pieces(pieces) => matches_pieces(pieces, text),
            Self::Any => true,
        }
    }
}

/// Tries the segments in turn and, where they fail, lets the last `**` take one segment more. Earlier ones need no second
/// chance, so that the time is bounded by the product of the lengths.
fn matches(segments: &[Segment], path: &str) -> bool {
    let (mut next, mut rest) = (0, Some(path));
    let mut last_any = None;
    loop {
        match (segments.get(next), rest) {
            (None, None) => return true,
            (Some(Segment::Any), _) => {
                next += 1;
                last_any = Some((next, rest));
                continue;
            }
            (Some(segment), Some(text)) => {
                let (first, others) = split_segment(text);
                if segment.matches(first) {
                    (next, rest) = (next + 1, others);
                    continue;
                }
            }
            _ => {}
        }
        let Some((after_any, Some(text))) = last_any else {
            return false;
        };
        (next, rest) = (after_any, split_segment(text).1);
        last_any = Some((next, rest));
    }
}

fn split_segment(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (text, None),
    }
}

/// The first piece is at the beginning, the last at the end, the others in between in their order.
fn matches_pieces(pieces: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = pieces else {
        return false;
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    for piece in middle {
        match rest.find(piece.as_str()) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last.as_str())
}

fn without_last_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_what_the_documentation_says() {
        let check = |glob: &str, yes: &[&str], no: &[&str]| {
            let glob = Glob::parse(glob).unwrap();
            for path in yes {
                assert!(glob.matches(path), "{glob:?} should match {path}");
            }
            for path in no {
                assert!(!glob.matches(path), "{glob:?} should not match {path}");
            }
        };
        check("/**", &["/", "/a", "/a/b/c", "//", "*"], &[]);
        check("/", &["/"], &["/a", "/a/b"]);
        check("/x", &["/x", "/x/"], &["/", "/xy", "/x/y", "/X"]);
        check("/x/", &["/x", "/x/"], &["/x/y"]);
        check("/x/**", &["/x", "/x/", "/x/y", "/x/y/z"], &["/", "/xy", "/y/x"]);
        check("/x/*", &["/x/y", "/x/y/"], &["/x/y/z", "/y/y", "/x"]);
        check("/x/*/z", &["/x/y/z", "/x//z"], &["/x/z", "/x/y/y/z"]);
        check("/**/z", &["/z", "/a/z", "/a/b/z/"], &["/", "/z/a"]);
        check("/a/**/b/**", &["/a/b", "/a/x/b", "/a/x/b/y", "/a/b/b"], &["/a", "/a/x", "/b"]);
        check("/v*/p-*-q", &["/v1/p-2-q", "/v/p--q"], &["/v1/p-q", "/w/p-2-q", "/v1/p-2-qq"]);
        check("/a*a", &["/aa", "/aba"], &["/a", "/ab"]);
        check("/*.json", &["/x.json", "/.json"], &["/json", "/x/y.json"]);
    }

    #[test]
    fn globs_that_cannot_match_are_refused() {
        for glob in ["", "x", "*", "**", "/a**", "/**b/c", "/a?b", "/a#b"] {
            assert!(Glob::parse(glob).is_err(), "{glob}");
        }
    }

    #[test]
    fn a_hostile_path_is_matched_in_bounded_time() {
        let glob = Glob::parse("/**/a/**/a/*a*a*a*b").unwrap();
        let start = std::time::Instant::now();
        assert!(!glob.matches(&"/a".repeat(4000)));
        assert!(!glob.matches(&format!("/{}", "a".repeat(8000))));
        assert!(start.elapsed() < std::time::Duration::from_millis(100), "{:?}", start.elapsed());
    }
}
