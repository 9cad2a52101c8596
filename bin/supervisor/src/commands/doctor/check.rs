//! One finding, and how findings are shown.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::output::{Color, Output};

/// The name of the document's format.
pub(super) const SCHEMA: &str = "bellwether.doctor/v1";

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Check {
    /// `subject.aspect`, the same in every release.
    pub(super) code: String,
    pub(super) severity: Severity,
    /// A sentence for people, without secrets.
    pub(super) summary: String,
    /// What to do about it, if anything.
    pub(super) fix: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Ok,
    /// Good to know, and no fault.
    Note,
    /// It works, and not as well as it could.
    Warning,
    /// Something does not work.
    Error,
}

impl Check {
    pub(super) fn ok(code: &str, summary: impl ToString) -> Self {
        Self::note(code, summary, None).with(Severity::Ok)
    }

    pub(super) fn note(code: &str, summary: impl ToString, fix: Option<&str>) -> Self {
        let fix = fix.map(str::to_owned);
        Self { code: code.to_owned(), severity: Severity::Note, summary: summary.to_string(), fix }
    }

    pub(super) fn warning(code: &str, summary: impl ToString, fix: impl AsRef<str>) -> Self {
        Self::note(code, summary, Some(fix.as_ref())).with(Severity::Warning)
    }

    pub(super) fn error(code: &str, summary: impl ToString, fix: impl AsRef<str>) -> Self {
        Self::note(code, summary, Some(fix.as_ref())).with(Severity::Error)
    }

    fn with(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}

impl Severity {
    fn symbol(self, unicode: bool) -> &'static str {
        match (self, unicode) {
            (Self::Ok, true) => "✓",
            (Self::Ok, false) => "+",
            (Self::Note, _) => "-",
            (Self::Warning, _) => "!",
            (Self::Error, true) => "✗",
            (Self::Error, false) => "x",
        }
    }

    fn color(self) -> Color {
        match self {
            Self::Ok => Color::Green,
            Self::Note => Color::Blue,
            Self::Warning => Color::Yellow,
            Self::Error => Color::Red,
        }
    }
}

/// The checks as one JSON document.
pub(super) fn document(checks: &[Check]) -> String {
    json!({ "schema": SCHEMA, "checks": checks }).to_string()
}

/// One line for each wanted check, and its fix indented below.
pub(super) fn lines(checks: &[Check], is_wanted: impl Fn(&Check) -> bool, output: &Output) -> Vec<String> {
    let width = checks.iter().map(|check| check.code.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for Check { code, severity, summary, fix } in checks.iter().filter(|check| is_wanted(check)) {
        let symbol = severity.symbol(output.unicode);
        let symbol = if output.color { severity.color().paint(symbol) } else { symbol.to_owned() };
        lines.push(format!("{symbol} {code:width$}  {summary}"));
        lines.extend(fix.iter().map(|fix| format!("  {:width$}  fix: {fix}", "")));
    }
    lines
}

/// One line about all of them.
pub(super) fn totals(checks: &[Check]) -> String {
    let counted = |severity: Severity, name| {
        let count = checks.iter().filter(|check| check.severity == severity).count();
        (count > 0).then(|| plural(count, name))
    };
    let faults: Vec<_> =
        [counted(Severity::Error, "error"), counted(Severity::Warning, "warning")].into_iter().flatten().collect();
    let faults = if faults.is_empty() { "nothing is wrong".to_owned() } else { faults.join(", ") };
    format!("{}: {faults}", plural(checks.len(), "check"))
}

fn plural(count: usize, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        vec![
            Check::ok("a.b", "good"),
            Check::note("long.code", "known", None),
            Check::warning("c.d", "slow", "be faster"),
            Check::error("e.f", "broken", "mend it"),
        ]
    }

    #[test]
    fn every_check_has_a_line_and_its_fix_stands_below() {
        let text = |unicode, color| lines(&checks(), |_| true, &Output::plain(None, unicode, color)).join("\n");
        let expected = "\
✓ a.b        good
- long.code  known
! c.d        slow
             fix: be faster
✗ e.f        broken
             fix: mend it";
        assert_eq!(text(true, false), expected);
        assert!(text(false, false).is_ascii() && text(false, false).contains("\nx e.f"));
        assert!(text(true, true).contains("\u{1b}[1;31m✗\u{1b}[0m e.f"));
    }

    #[test]
    fn the_last_line_counts_what_is_wrong() {
        assert_eq!(totals(&checks()), "4 checks: 1 error, 1 warning");
        assert_eq!(totals(&checks()[..1]), "1 check: nothing is wrong");
    }

    #[test]
    fn the_document_names_its_schema_and_a_missing_fix_is_null() {
        let document: serde_json::Value = serde_json::from_str(&document(&checks())).unwrap();
        assert_eq!(document["schema"], "bellwether.doctor/v1");
        assert_eq!(document["checks"][0], json!({ "code": "a.b", "severity": "ok", "summary": "good", "fix": null }));
        assert_eq!(document["checks"][3]["severity"], "error");
    }
}
