//! `[[rate_limit.policy]]` and `[[supervisor.process]]`: what is read, and what is refused where.

use super::Case;
use crate::{Algorithm, Count, KeyPart, Lease, OnOutage, PolicyKey, Settings, Tier};

#[test]
fn processes_are_read_with_their_defaults() {
    let case = Case::new().file(
        "[[supervisor.process]]\nname = \"mailer\"\ncommand = [\"mail\", \"\", \"-v\"]\n\
         [[supervisor.process]]\nname = \"jobs\"\ncommand = [\"jobs\"]\ncount = 2\n",
    );
    let processes = case.load().unwrap().settings.supervisor.processes;
    let [mailer, jobs] = processes.as_slice() else { panic!("two processes") };
    assert_eq!(mailer.command.iter().map(|word| word.as_str()).collect::<Vec<_>>(), ["mail", "", "-v"]);
    assert_eq!((mailer.count, mailer.instances()), (1, vec!["mailer".to_owned()]));
    assert_eq!(jobs.instances(), ["jobs-0", "jobs-1"]);
    assert_eq!(case.shown("supervisor.process").1, "bellwether.toml:1");
}

#[test]
fn every_mistake_in_a_process_is_reported_at_its_place() {
    let cases = [
        ("name = \"a\"", "1:1: `supervisor.process`: a process needs `command`"),
        (
            "name = \"a b\"",
            "2:8: `supervisor.process`: expected a name of 1 to 64 letters, digits, `-` and `_`, found `a b`",
        ),
        ("name = \"supervisor\"", "2:8: `supervisor.process`: expected a name of"),
        ("name = \"supervisor\"", "found `supervisor`: that is the name of the supervisor"),
        ("name = \"w12\"", "found `w12`: that is the name of a worker"),
        ("command = \"mail -v\"", "2:11: `supervisor.process`: expected a list of a program or an argument"),
        ("comand = [\"a\"]", "did you mean `command`?"),
        (
            "user = \"a\"",
            "2:1: `supervisor.process`: a process has no `user` in this version; it takes name, command, count",
        ),
        ("name = \"a\"\ncommand = []", "3:11: `supervisor.process`: a command begins with a program"),
        ("name = \"a\"\ncommand = [\"\"]", "3:11: `supervisor.process`: a command begins with a program"),
        ("name = \"a\"\ncommand = [\"a\"]\ncount = 0", "4:9: `supervisor.process`: a count is between 1 and 1024"),
        (
            "name = \"a-1\"\ncommand = [\"a\"]\n[[supervisor.process]]\nname = \"a\"\ncommand = [\"a\"]\ncount = 2",
            "5:8: `supervisor.process`: two processes are named `a-1`",
        ),
        (
            "name = \"a\"\ncommand = [\"a\"]\ncount = 2\n[[supervisor.process]]\nname = \"a\"\ncommand = [\"b\"]",
            "6:8: `supervisor.process`: two processes are named `a`",
        ),
    ];
    for (table, expected) in cases {
        let problems = Case::new().file(&format!("[[supervisor.process]]\n{table}\n")).problems();
        assert!(problems.contains(expected), "{expected} is missing in\n{problems}");
    }
    let problems = Case::new().file("[[supervisor.proces]]\nname = \"a\"\n").problems();
    assert!(problems.contains("did you mean `process`?"), "{problems}");
    let problems = Case::new().file("[supervisor]\nprocess = \"mailer\"\n").problems();
    assert!(problems.contains("2:11: `supervisor.process`: expected [[supervisor.process]] tables"), "{problems}");
}

#[test]
fn policies_are_read_with_their_defaults() {
    let case = Case::new().file("[[rate_limit.policy]]\nname = \"all\"\nlimit = 5\nwindow = \"1m\"\n");
    let policies = case.load().unwrap().settings.rate_limit.policies;
    let [policy] = policies.as_slice() else { panic!("one policy") };
    assert_eq!((policy.name.as_str(), policy.limit, policy.window().as_secs()), ("all", 5, 60));
    assert_eq!(policy.paths[0].as_str(), "/**");
    assert!(policy.methods.is_empty() && policy.tiers.iter().next().is_none());
}

#[test]
fn every_mistake_in_a_policy_is_reported_at_its_place() {
    let cases = [
        ("name = \"a\"\nlimit = 1", "1:1: `rate_limit.policy`: a policy needs `window`"),
        ("name = \"a b\"", "2:8: `rate_limit.policy`: expected a name of 1 to 64 letters"),
        (
            "key = \"users\"",
            "2:7: `rate_limit.policy`: expected \"address\", \"user\", \"api_key\", \"route\" or \"header:NAME\", found `users`",
        ),
        ("key = { last = [] }", "2:7: `rate_limit.policy`: expected { first = [...] } and nothing else in it"),
        ("key = []", "found a list of nothing"),
        ("algorithm = \"gcr\"", "2:13: `rate_limit.policy`: expected \"fixed_window\", \"gcra\","),
        ("on_outage = \"opn\"", "2:13: `rate_limit.policy`: expected \"local\", \"open\" or \"closed\", found `opn`"),
        (
            "name = \"a\"\nlimit = 1\nwindow = \"1s\"\nburst = 20",
            "5:9: `rate_limit.policy`: only gcra and pacing have a burst",
        ),
        (
            "name = \"a\"\nlimit = 1\nwindow = \"1s\"\nalgorithm = \"pacing\"",
            "5:13: `rate_limit.policy`: pacing needs max_delay",
        ),
        (
            "name = \"a\"\nlimit = 1001\nwindow = \"1s\"\nalgorithm = \"sliding_log\"",
            "3:9: `rate_limit.policy`: a sliding log holds at most 1000",
        ),
        (
            "name = \"a\"\nlimit = 1\nwindow = \"1s\"\nalgorithm = \"concurrency\"\nlease = \"auto\"",
            "6:9: `rate_limit.policy`: this algorithm cannot be leased",
        ),
        ("limt = 20", "did you mean `limit`?"),
        ("methods = [\"get\"]", "2:12: `rate_limit.policy`: expected one of GET, HEAD,"),
        ("paths = [\"/a**/b\"]", "2:10: `rate_limit.policy`: expected a path such as"),
        ("name = \"a\"\nlimit = -1", "3:9: `rate_limit.policy`: expected a whole number"),
        ("name = \"a\"\nlimit = 1\nwindow = \"0s\"", "4:10: `rate_limit.policy`: a window is at least 1ms long"),
        ("name = \"a\"\nlimit = 1\nwindow = \"367d\"", "4:10: `rate_limit.policy`: a window is at most 366d long"),
        ("name = \"a\"\nlimit = 1\nwindow = \"1s\"\ncost = 0", "5:8: `rate_limit.policy`: a cost is between 1 and"),
        (
            "name = \"a\"\nlimit = 100001\nalgorithm = \"concurrency\"",
            "3:9: `rate_limit.policy`: at most 100000 at the same time",
        ),
        (
            "name = \"a\"\nlimit = 50000001\nwindow = \"1s\"\nalgorithm = \"gcra\"",
            "3:9: `rate_limit.policy`: a bucket holds at most",
        ),
        (
            "name = \"a\"\nlimit = 1\nwindow = \"1m\"\n[[rate_limit.policy]]\nname = \"a\"\nlimit = 2\nwindow = \"1h\"",
            "6:8: `rate_limit.policy`: two policies are named `a`",
        ),
    ];
    for (table, expected) in cases {
        let problems = Case::new().file(&format!("[[rate_limit.policy]]\n{table}\n")).problems();
        assert!(problems.contains(expected), "{expected} is missing in\n{problems}");
    }
}

#[test]
fn a_policy_says_whom_it_counts_how_and_what_happens_without_redis() {
    let table = "name = \"a\"\nlimit = 5\nwindow = \"1m\"\nkey = [\"user\", \"header:X-Tenant\"]\nalgorithm = \"gcra\"\n\
                 burst = 7\ncost = 2\ncount = \"failure\"\non_outage = \"closed\"\nlease = \"auto\"\nshadow = true\n\
                 [[rate_limit.policy]]\nname = \"b\"\nlimit = 1\nwindow = \"1m\"\nkey = { first = [\"api_key\", \"address\"] }\n\
                 algorithm = \"pacing\"\nmax_delay = \"2s\"\n";
    let policies =
        Case::new().file(&format!("[[rate_limit.policy]]\n{table}")).load().unwrap().settings.rate_limit.policies;
    let [a, b] = policies.as_slice() else { panic!("two policies") };
    assert_eq!(a.key, PolicyKey::All(vec![KeyPart::User, KeyPart::Header("x-tenant".to_owned())]));
    assert_eq!((a.algorithm, a.burst, a.cost, a.count), (Algorithm::Gcra, Some(7), 2, Count::Failure));
    assert_eq!((a.on_outage, a.lease, a.shadow), (OnOutage::Closed, Lease::Auto, true));
    assert_eq!(b.key, PolicyKey::First(vec![KeyPart::ApiKey, KeyPart::Address]));
    assert_eq!((b.algorithm, b.max_delay.map(|delay| delay.as_secs())), (Algorithm::Pacing, Some(2)));
}

#[test]
fn every_mistake_in_tiers_is_reported_at_its_place() {
    let cases = [
        (
            "tiers = 600",
            "2:9: `rate_limit.policy`: expected tiers such as { retailer = 600, admin = \"unlimited\" }, found",
        ),
        (
            "tiers = { retailr = 600 }",
            "2:11: `rate_limit.policy`: there is no tier `retailr`; there are admin, vendor,",
        ),
        ("tiers = { retailr = 600 }", "did you mean `retailer`?"),
        (
            "tiers = { admin = \"all\" }",
            "2:19: `rate_limit.policy`: expected a limit such as 600, or \"unlimited\", found",
        ),
        ("tiers = { vendor = -1 }", "2:20: `rate_limit.policy`: expected a limit such as 600"),
        (
            "name = \"a\"\nlimit = 1\nwindow = \"1s\"\nalgorithm = \"sliding_log\"\ntiers = { vendor = 1001 }",
            "6:9: `rate_limit.policy`: a sliding log holds at most 1000",
        ),
    ];
    for (table, expected) in cases {
        let problems = Case::new().file(&format!("[[rate_limit.policy]]\n{table}\n")).problems();
        assert!(problems.contains(expected), "{expected} is missing in\n{problems}");
    }
}

#[test]
fn tiers_no_paths_and_windows_that_are_short_or_absent_are_read_and_handed_on() {
    let case = Case::new().file(
        "[[rate_limit.policy]]\nname = \"a\"\nlimit = 5\nwindow = \"1ms\"\npaths = []\n\
         tiers = { retailer = 600, admin = \"unlimited\" }\n\
         [[rate_limit.policy]]\nname = \"b\"\nlimit = 5\nalgorithm = \"concurrency\"\n",
    );
    let settings = case.load().unwrap().settings;
    let [a, b] = settings.rate_limit.policies.as_slice() else { panic!("two policies") };
    assert!(a.paths.is_empty());
    assert_eq!((a.window().as_millis(), b.window().as_secs()), (1, 5));
    let tiers: Vec<_> = a.tiers.iter().collect();
    assert_eq!(tiers, [("admin", Tier::Unlimited), ("retailer", Tier::Limit(600))]);
    assert_eq!(Settings::from_json(&settings.to_json()).unwrap(), settings);
    let (a, b) = (a.to_json(), b.to_json());
    assert_eq!((&a["window"], &a["tiers"]["admin"]), (&"1ms".into(), &"unlimited".into()));
    assert!(b["window"].is_null() && b["tiers"].is_null());
}

#[test]
fn policies_that_are_hardly_meant_are_warned_about() {
    let policy = |rest: &str| format!("[[rate_limit.policy]]\nname = \"a\"\nwindow = \"1m\"\n{rest}\n");
    let cases = [
        ("limit = 0", vec!["rate-limit/limit-zero"]),
        ("limit = 1\ntiers = { vendor = 0 }", vec!["rate-limit/limit-zero"]),
        ("limit = 3\nlease = \"auto\"", vec!["rate-limit/lease-useless"]),
        ("limit = 4\nlease = \"auto\"", vec![]),
        ("limit = 3\ntiers = { vendor = 100 }\nlease = \"auto\"", vec![]),
        ("limit = 100\ncost = 30\nlease = \"auto\"", vec!["rate-limit/lease-useless"]),
        ("limit = 100\nburst = 3\nalgorithm = \"gcra\"\nlease = \"auto\"", vec!["rate-limit/lease-useless"]),
        ("limit = 3", vec![]),
    ];
    for (rest, expected) in cases {
        let codes = |text: &str| -> Vec<_> {
            let warnings = Case::new().file(text).load().unwrap().warnings;
            warnings.into_iter().map(|warning| warning.code).collect()
        };
        assert_eq!(codes(&policy(rest)), expected, "{rest}");
        assert!(codes(&format!("[rate_limit]\nenabled = false\n{}", policy(rest))).is_empty(), "{rest}");
    }
}
