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

/// A marketplace's limits, the narrow ones first.
const POLICIES: &str = "
# One limit per table; all that match a request apply to it. These are a marketplace's: those that are switched off are
# for pages that it may have; take the `# ` away from all lines of a table.
[[rate_limit.policy]]
name = \"catalogue\"                  # appears in headers
paths = [\"/api/v1/products/**\"]     # globs, /x/** matches /x too; all by default, [] for where code names it only
methods = [\"GET\", \"HEAD\"]           # all by default
key = \"address\"                     # whose requests are counted together: those of one client address
algorithm = \"fixed_window\"          # windows of this length, begun at a time of each client's own
limit = 500
window = \"15m\"
on_outage = \"local\"                 # Redis away: the limit is divided among the workers

[[rate_limit.policy]]
name = \"everything\"
limit = 1000
window = \"1h\"
# tiers = { vendor = 5000, admin = \"unlimited\" }   # other limits for some roles

# [[rate_limit.policy]]
# name = \"login\"
# paths = [\"/api/v1/login\"]
# methods = [\"POST\"]
# limit = 5
# window = \"15m\"
# count = \"failure\"                   # who knows the password is not counted
# on_outage = \"closed\"                # rather nobody than everybody

# [[rate_limit.policy]]
# name = \"one-time-code\"
# paths = [\"/api/v1/one-time-code\"]
# methods = [\"POST\"]
# limit = 3
# window = \"10m\"
# on_outage = \"closed\"

# [[rate_limit.policy]]
# name = \"password-reset\"
# paths = [\"/api/v1/password-reset\"]
# methods = [\"POST\"]
# limit = 3
# window = \"1h\"
# on_outage = \"closed\"

# [[rate_limit.policy]]
# name = \"uploads\"
# paths = [\"/api/v1/uploads/**\"]
# methods = [\"POST\", \"PUT\"]
# key = { first = [\"user\", \"address\"] }   # the user, if there is one
# limit = 50
# window = \"1h\"

# [[rate_limit.policy]]
# name = \"search\"
# paths = [\"/api/v1/search/**\"]
# algorithm = \"gcra\"                  # a bucket that is refilled evenly
# limit = 100
# burst = 20
# window = \"1m\"

# [[rate_limit.policy]]
# name = \"administration\"
# paths = [\"/api/v1/admin/**\"]
# key = \"user\"
# limit = 20
# window = \"1m\"
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
