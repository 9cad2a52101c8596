//! Addresses of services, which may carry a password.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::setting::{Kind, Scalar};

const REDIS_SCHEMES: &[&str] =
    &["redis", "rediss", "redis+unix", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];
const DATABASE_SCHEMES: &[&str] = &["sqlite", "postgres"];

/// Where Redis is. Printing it hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// Where the database is. Printing it hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl RedisUrl {
    /// The customary address on this machine.
    pub(crate) fn local() -> Self {
        Self("redis://127.0.0.1:6379".to_owned())
    }

    /// The URL with its password, for the one who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl DatabaseUrl {
    /// The SQLite file at `path`.
    pub(crate) fn sqlite(path: &Path) -> Self {
        let mut url = "sqlite://".to_owned();
        for character in path.to_string_lossy().chars() {
            match character {
                '%' => url.push_str("%25"),
                '?' => url.push_str("%3F"),
                '#' => url.push_str("%23"),
                other => url.push(other),
            }
        }
        Self(url)
    }

    /// The URL with its password, for the one who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The SQLite file; `None` for other databases.
    pub fn file(&self) -> Option<PathBuf> {
        let path = self.0.strip_prefix("sqlite://")?.split('?').next()?;
        let mut decoded = Vec::with_capacity(path.len());
        let mut rest = path.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let escaped = after
                .get(..2)
                .filter(|_| byte == b'%')
                .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
            decoded.push(escaped.unwrap_or(byte));
            rest = if escaped.is_some() { &after[2..] } else { after };
        }
        (decoded != b":memory:").then(|| PathBuf::from(OsString::from_vec(decoded)))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Scalar for RedisUrl {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str =
        "a URL that begins with redis://, rediss://, redis+unix://, redis(s)-cluster:// or redis(s)-sentinel://";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        has_scheme(text, REDIS_SCHEMES).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn shown(&self) -> String {
        self.to_string()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": format!("^({})://.", REDIS_SCHEMES.join("|").replace('+', "\\+")) })
    }
}

impl Scalar for DatabaseUrl {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a URL that begins with sqlite:// or postgres://";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        has_scheme(text, DATABASE_SCHEMES).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn shown(&self) -> String {
        self.to_string()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": format!("^({})://.", DATABASE_SCHEMES.join("|")) })
    }
}

fn has_scheme(text: &str, schemes: &[&str]) -> bool {
    let parts = text.split_once("://");
    parts.is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty())
}

/// Text with the password of the URL in it, and of that URL's query, replaced by `***`.
///
/// A password that was not escaped as URLs demand may hold any character, so everything up to the last `@` counts.
pub(crate) fn masked(text: &str) -> String {
    let Some((before, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{name}:***@{host}")
        }
        _ => rest.to_owned(),
    };
    format!("{before}://{}", masked_query(&rest))
}

fn masked_query(rest: &str) -> String {
    let Some((before, query)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if name.to_lowercase().contains("pass") => {
            // What follows the URL on its line, a closing quote for one, is kept.
            let end = value.find(['"', '\'']).unwrap_or(value.len());
            format!("{name}=***{}", &value[end..])
        }
        _ => pair.to_owned(),
    });
    format!("{before}?{}", pairs.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_never_show() {
        let cases = [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:s3cret@host:1/0", "redis://:***@host:1/0"),
            ("postgres://app:p@ss/w:rd@db/shop", "postgres://app:***@db/shop"),
            ("redis-sentinel://h:1?sentinelPassword=s3cret&db=1", "redis-sentinel://h:1?sentinelPassword=***&db=1"),
            ("url = \"redis://:s3cret@h\"  # note", "url = \"redis://:***@h\"  # note"),
            ("postgres://app@db/shop", "postgres://app@db/shop"),
            ("no url: at all@", "no url: at all@"),
        ];
        for (text, shown) in cases {
            assert_eq!(masked(text), shown);
        }
    }

    #[test]
    fn debug_output_holds_no_password() {
        let url = RedisUrl::parse("redis://:s3cret@host").unwrap();
        assert_eq!(format!("{url:?} {url}"), "redis://:***@host redis://:***@host");
        assert_eq!(url.expose(), "redis://:s3cret@host");
    }

    #[test]
    fn only_the_documented_schemes_are_taken() {
        for good in [
            "redis://h",
            "rediss://h",
            "redis+unix:///run/r.sock",
            "redis-cluster://a:1",
            "rediss-cluster://a:1",
            "rediss-sentinel://a:1",
        ] {
            assert!(RedisUrl::parse(good).is_some(), "{good}");
        }
        for bad in ["http://h", "redis:", "redis://", "h:6379"] {
            assert!(RedisUrl::parse(bad).is_none(), "{bad}");
        }
        assert!(DatabaseUrl::parse("mysql://h").is_none());
    }

    #[test]
    fn a_file_comes_back_out_of_its_url() {
        let path = Path::new("/var/lib/100% #1?/a.db");
        assert_eq!(DatabaseUrl::sqlite(path).file().as_deref(), Some(path));
        let file = |text: &str| DatabaseUrl(text.to_owned()).file();
        assert_eq!(file("sqlite://a.db?mode=ro"), Some(PathBuf::from("a.db")));
        assert_eq!(file("sqlite://:memory:"), None);
        assert_eq!(file("postgres://h/a.db"), None);
    }
}
