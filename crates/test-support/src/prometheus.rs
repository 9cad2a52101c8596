//! What `promtool check metrics` says about a text of metrics, without Prometheus: its rules are those of `promlint` in
//! prometheus/client_golang 1.14, and twice the same metric besides.

use std::collections::{BTreeMap, BTreeSet};

/// Units that are no base units, as parts of names, and what belongs in their place. Those with a prefix (`milliseconds`) come on top.
const UNITS: [(&str, &str); 14] = [
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("kelvins", "kelvin"),
    ("fahrenheit", "celsius"),
    ("rankine", "celsius"),
    ("inches", "meters"),
    ("yards", "meters"),
    ("miles", "meters"),
    ("bits", "bytes"),
    ("calories", "joules"),
    ("pounds", "grams"),
    ("ounces", "grams"),
];
const BASE_UNITS: [&str; 10] =
    ["amperes", "bytes", "celsius", "grams", "joules", "kelvin", "meters", "metres", "seconds", "volts"];
const PREFIXES: [&str; 18] = [
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega", "mebi", "giga", "gibi",
    "tera", "tebi", "peta", "pebi",
];
const ABBREVIATIONS: [&str; 14] = ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];
const KINDS: [&str; 5] = ["counter", "gauge", "summary", "untyped", "histogram"];

#[derive(Default)]
struct Family<'a> {
    help: bool,
    kind: &'a str,
    labels: BTreeSet<&'a str>,
}

/// Every complaint about `text`, one a line; nothing when it is clean.
///
/// # Panics
/// If `text` is not in Prometheus's text format: that is another fault than a bad name.
pub fn lint(text: &str) -> Vec<String> {
    let mut families: BTreeMap<&str, Family> = BTreeMap::new();
    let mut samples = BTreeSet::new();
    let mut complaints = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let (what, rest) = comment.split_once(' ').expect("a comment is HELP or TYPE");
            let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
            let family = families.entry(name).or_default();
            let again = match what {
                "HELP" => std::mem::replace(&mut family.help, !value.is_empty()),
                _ => !std::mem::replace(&mut family.kind, value).is_empty(),
            };
            if again {
                complaints.push(format!("{name} second {what} line"));
            }
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
            assert!(value.parse::<f64>().is_ok() || ["+Inf", "-Inf", "NaN"].contains(&value), "no value: {line}");
            if !samples.insert(sample) {
                complaints.push(format!("{sample} more than once"));
            }
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let family = families.entry(family_of(name, &families)).or_default();
            family.labels.extend(label_names(labels));
        }
    }
    for (name, family) in &families {
        complaints.extend(judge(name, family).into_iter().map(|complaint| format!("{name} {complaint}")));
    }
    complaints
}

/// The family that a sample belongs to: of a histogram it has the name without the suffix.
fn family_of<'a>(sample: &'a str, families: &BTreeMap<&'a str, Family<'a>>) -> &'a str {
    let stems = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| sample.strip_suffix(suffix));
    let is_histogram = |stem: &&str| families.get(*stem).is_some_and(|family| family.kind == "histogram");
    stems.into_iter().find(is_histogram).unwrap_or(sample)
}

/// The names of labels in `a="…",b="…"}`; values may hold anything, with quotes and backslashes escaped.
fn label_names(mut text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        names.push(name.trim_start_matches(','));
        let mut escaped = false;
        let end = rest.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        text = &rest[end.expect("a value ends with a quote") + 1..];
    }
    names
}

fn judge(name: &str, family: &Family) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut forbid = |wrong: bool, complaint: String| {
        if wrong {
            complaints.push(complaint);
        }
    };
    let histogram = family.kind == "histogram";
    let ends_in_total = name.ends_with("_total");
    forbid(!family.help, "no help text".into());
    forbid(family.kind == "counter" && !ends_in_total, "counter metrics should have \"_total\" suffix".into());
    forbid(family.kind != "counter" && ends_in_total, "non-counter metrics should not have \"_total\" suffix".into());
    for suffix in ["_bucket", "_count", "_sum"] {
        forbid(!histogram && name.ends_with(suffix), format!("only histograms should have \"{suffix}\" suffix"));
    }
    forbid(!histogram && family.labels.contains("le"), "only histograms should have \"le\" label".into());
    forbid(family.labels.contains("quantile"), "only summaries should have \"quantile\" label".into());
    for kind in KINDS {
        forbid(has_part(name, kind), format!("metric name should not include type '{kind}'"));
    }
    for abbreviation in ABBREVIATIONS {
        forbid(
            has_part(name, abbreviation),
            format!("metric names should not contain abbreviated unit '{abbreviation}'"),
        );
    }
    forbid(name.contains(':'), "metric names should not contain ':'".into());
    for text in family.labels.iter().copied().chain([name]) {
        forbid(is_camel_case(text), format!("'{text}' should be written in 'snake_case' not 'camelCase'"));
    }
    for (unit, base) in name.split('_').filter_map(base_unit) {
        forbid(true, format!("use base unit \"{base}\" instead of \"{unit}\""));
    }
    complaints
}

fn has_part(name: &str, part: &str) -> bool {
    name.contains(&format!("_{part}_")) || name.ends_with(&format!("_{part}"))
}

fn is_camel_case(text: &str) -> bool {
    text.as_bytes().windows(2).any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
}

/// `part` and its base unit, if it is a unit and no base unit.
fn base_unit(part: &str) -> Option<(&str, &str)> {
    let known = |text: &str| {
        let own = BASE_UNITS.iter().map(|base| (*base, *base));
        own.chain(UNITS).find(|(unit, _)| *unit == text).map(|(_, base)| base)
    };
    let prefixed = || PREFIXES.iter().find_map(|prefix| known(part.strip_prefix(prefix)?));
    let base = known(part).or_else(prefixed)?;
    (base != part).then_some((part, base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_text_has_no_complaint() {
        let text = r##"# HELP a_total A.
# TYPE a_total counter
a_total{path="/x\"y\\",code="200"} 3
# HELP b_seconds B.
# TYPE b_seconds histogram
b_seconds_bucket{le="1"} 1
b_seconds_bucket{le="+Inf"} 2
b_seconds_sum 9.5
b_seconds_count 2
# HELP thermometers C.
# TYPE thermometers gauge
thermometers NaN
"##;
        assert_eq!(lint(text), [""; 0]);
    }

    #[test]
    fn each_fault_is_named() {
        let gauge = |name: &str| format!("# HELP {name} X.\n# TYPE {name} gauge\n{name} 1\n");
        let cases = [
            ("# TYPE a gauge\na 1\n".to_owned(), "no help text"),
            ("# HELP a A.\n# TYPE a counter\na 1\n".to_owned(), "counter metrics should have"),
            (gauge("a_total"), "non-counter metrics should not have"),
            (gauge("threads_count"), "\"_count\" suffix"),
            (gauge("a_sum"), "\"_sum\" suffix"),
            (gauge("a_bucket"), "\"_bucket\" suffix"),
            (gauge("a_gauge"), "type 'gauge'"),
            (gauge("a_ms"), "abbreviated unit 'ms'"),
            (gauge("a:b"), "':'"),
            (gauge("aB"), "camelCase"),
            (gauge("a_milliseconds"), "use base unit \"seconds\" instead of \"milliseconds\""),
            (gauge("a_bits"), "use base unit \"bytes\""),
            (gauge("a") + "a 2\n", "a more than once"),
            (gauge("a") + "# TYPE a gauge\n", "second TYPE"),
            ("# HELP a A.\n# TYPE a gauge\na{le=\"1\"} 1\n".to_owned(), "\"le\" label"),
            ("# HELP a A.\n# TYPE a gauge\na{pathName=\"1\"} 1\n".to_owned(), "'pathName'"),
        ];
        for (text, complaint) in cases {
            let complaints = lint(&text);
            assert!(complaints.len() == 1 && complaints[0].contains(complaint), "{text}: {complaints:?}");
        }
    }
}
