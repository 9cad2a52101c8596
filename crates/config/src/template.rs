//! The commented configuration file that `config init` writes.

use std::fmt::Write as _;

use crate::keys::{KEYS, Key, POLICY, PROCESS, about_section, sections};
use crate::settings::Settings;

const HEAD: &str = "\
# Bellwether's configuration. A line that begins with `# key =` shows the default; take the `# ` away to change it.
#
# Precedence: flag > environment > this file > default. Each key `a.b` has the variable BELLWETHER__A__B, and PORT, HOST,
# WEB_CONCURRENCY, REDIS_URL, DATABASE_URL, RUST_LOG and TRUSTED_PROXIES work too. `supervisor config check` finds all
# mistakes at once, `supervisor config show --origin` tells where each value came from.
";

const PROCESSES: &str = "
# A kind of process beside the web workers, such as a job runner: started before them, stopped after them, restarted by
# the same rules. One table per kind; take the `# ` away from all its lines.
# [[supervisor.process]]
# name = \"mailer\"                     # in `status`, and before its log lines
# command = [\"mailer\", \"--verbose\"]   # program and arguments; no shell reads it
# count = 2                           # mailer-0 and mailer-1, each with its number in PROCESS_ID
";

const POLICIES: &str = "
# One limit per table; all that match a request apply to it.
[[rate_limit.policy]]
name = \"catalogue\"                  # appears in headers
paths = [\"/api/v1/products/**\"]     # globs, /x/** matches /x too; all by default
methods = [\"GET\", \"HEAD\"]           # all by default
key = \"address\"                     # whose requests are counted together: those of one client address
algorithm = \"fixed_window\"          # aligned windows, begun at a time of each client's own
limit = 500
window = \"15m\"
on_outage = \"local\"                 # Redis away: the limit is divided among the workers

[[rate_limit.policy]]
name = \"everything\"
limit = 1000
window = \"1h\"
";

/// The text of the template. It is itself a valid configuration: the defaults, with two policies as examples.
pub fn template() -> String {
    let mut text = HEAD.to_owned();
    for section in sections() {
        let _ = write!(text, "\n# {}\n[{section}]\n", about_section(section));
        let (tables, keys): (Vec<_>, Vec<_>) =
            KEYS.iter().filter(|key| key.section() == section).partition(|key| tables(key).is_some());
        for (index, key) in keys.into_iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            describe(&mut text, key);
        }
        // Last in their section: in TOML, a key that follows a table belongs to it.
        text.extend(tables.into_iter().filter_map(self::tables));
    }
    text
}

/// The text for a key that is a list of tables.
fn tables(key: &Key) -> Option<&'static str> {
    match key.path {
        PROCESS => Some(PROCESSES),
        POLICY => Some(POLICIES),
        _ => None,
    }
}

fn describe(text: &mut String, key: &Key) {
    for line in key.about.lines() {
        let _ = writeln!(text, "# {line}");
    }
    let value = (key.slot)(&mut Settings::default()).value();
    let value = value.map_or_else(|| quoted(key.example), |value| value.to_string());
    let _ = writeln!(text, "# {} = {value}", key.name());
}

fn quoted(example: Option<&str>) -> String {
    format!("{:?}", example.unwrap_or_default())
}
