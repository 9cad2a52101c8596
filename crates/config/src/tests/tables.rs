//! `[[rate_limit.policy]]` and `[[supervisor.process]]`: what is read, and what is refused where.

use super::Case;

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
    assert_eq!((policy.name.as_str(), policy.limit, policy.window.as_secs()), ("all", 5, 60));
    assert_eq!(policy.paths[0].as_str(), "/**");
    assert!(policy.methods.is_empty());
}

#[test]
fn every_mistake_in_a_policy_is_reported_at_its_place() {
    let cases = [
        ("name = \"a\"\nlimit = 1", "1:1: `rate_limit.policy`: a policy needs `window`"),
        ("name = \"a b\"", "2:8: `rate_limit.policy`: expected a name of 1 to 64 letters"),
        (
            "key = \"user\"",
            "2:7: `rate_limit.policy`: expected \"address\", the only key this version supports, found `user`",
        ),
        (
            "key = [\"address\", \"route\"]",
            "2:7: `rate_limit.policy`: expected \"address\", the only key this version supports, found a list",
        ),
        (
            "algorithm = \"gcra\"",
            "2:13: `rate_limit.policy`: expected \"fixed_window\", the only algorithm this version supports, found `gcra`",
        ),
        (
            "on_outage = \"open\"",
            "2:13: `rate_limit.policy`: expected \"local\", the only behaviour this version supports, found `open`",
        ),
        ("burst = 20", "2:1: `rate_limit.policy`: a policy has no `burst` in this version; it takes name, paths,"),
        ("limt = 20", "did you mean `limit`?"),
        ("methods = [\"get\"]", "2:12: `rate_limit.policy`: expected one of GET, HEAD,"),
        ("paths = [\"/a**/b\"]", "2:10: `rate_limit.policy`: expected a path such as"),
        ("name = \"a\"\nlimit = 0\nwindow = \"1m\"", "3:9: `rate_limit.policy`: a limit is at least 1"),
        ("name = \"a\"\nlimit = 1\nwindow = \"5ms\"", "4:10: `rate_limit.policy`: a window is at least 1s long"),
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
