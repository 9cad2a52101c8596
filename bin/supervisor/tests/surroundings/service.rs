//! The unit as systemd itself judges it.

use std::process::Command;

use crate::shell::{Ended, Shell};

/// The most that `systemd-analyze security` may find exposed, in tenths.
const THRESHOLD: &str = "30";

fn systemd_analyze(arguments: &[&str], shell: &Shell) -> Ended {
    let unit = shell.path("bellwether.service");
    let asked = Command::new("systemd-analyze").arg("--version").output();
    assert!(asked.is_ok(), "there is no systemd-analyze; install it: apt-get install systemd");
    Ended::of(Command::new("systemd-analyze").args(arguments).arg(unit))
}

/// Prints a unit, lets systemd judge it, and returns its text.
fn judged(shell: &Shell, arguments: &[&str]) -> String {
    let ended = shell.run(&[arguments, &["service", "print"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    shell.write("bellwether.service", &ended.stdout);
    let verified = systemd_analyze(&["verify"], shell);
    assert_eq!((verified.code, verified.stdout.as_str(), verified.stderr.as_str()), (0, "", ""), "{}", ended.stdout);
    let threshold = format!("--threshold={THRESHOLD}");
    let secured = systemd_analyze(&["security", "--offline=true", "--no-pager", &threshold], shell);
    assert_eq!(secured.code, 0, "{}", secured.stdout);
    ended.stdout
}

fn has_line(unit: &str, line: &str) -> bool {
    unit.lines().any(|candidate| candidate == line)
}

#[test]
fn systemd_finds_nothing_wrong_and_little_exposed_in_every_form_of_the_unit() {
    let forms: [&[&str]; 4] = [
        &[],
        &["--set", "supervisor.listen=[\"0.0.0.0:80\"]"],
        &["--set", "supervisor.user=\"nobody\""],
        &[
            "--set",
            "supervisor.user=\"nobody\"",
            "--set",
            "supervisor.listen=[\"0.0.0.0:80\", \"unix:/run/bellwether/a.sock\"]",
        ],
    ];
    for form in forms {
        let unit = judged(&Shell::new(), form);
        for line in ["NotifyAccess=main", "RestartPreventExitStatus=78", "KillMode=mixed", "StateDirectoryMode=0700"] {
            assert!(has_line(&unit, line), "{line} is missing for {form:?} in\n{unit}");
        }
    }
}

#[test]
fn only_the_privileges_that_the_configuration_needs_are_left() {
    let shell = Shell::new();
    let plain = judged(&shell, &[]);
    assert!(has_line(&plain, "CapabilityBoundingSet=") && has_line(&plain, "DynamicUser=yes"), "{plain}");
    let port = judged(&shell, &["--set", "supervisor.listen=[\"0.0.0.0:443\"]"]);
    for line in ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE"] {
        assert!(has_line(&port, line), "{line} is missing in\n{port}");
    }
    let user = judged(&shell, &["--set", "supervisor.user=\"nobody\""]);
    assert!(user.contains("CAP_SETUID") && has_line(&user, "User=root"), "{user}");
    assert!(!user.contains("CAP_NET_BIND_SERVICE") && !user.contains("DynamicUser"), "{user}");
}

#[test]
fn the_unit_names_this_executable_and_configuration_and_keeps_to_their_timeouts() {
    let shell = Shell::new();
    shell.write("100% $HOME.toml", "[supervisor]\nkill_timeout = \"90s\"\n[http]\nmax_connections = 100000\n");
    let unit = judged(&shell, &["--config", "100% $HOME.toml", "--set", "log.level=info,api=\"debug\""]);
    let config = shell.path("100%% $$HOME.toml");
    let expected = format!(
        "ExecStart={} start --config \"{}\" --set \"log.level=info,api=\\\"debug\\\"\"",
        env!("CARGO_BIN_EXE_supervisor"),
        config.display()
    );
    assert!(has_line(&unit, &expected), "{expected} is missing in\n{unit}");
    assert!(has_line(&unit, "TimeoutStopSec=100s") && has_line(&unit, "LimitNOFILE=101024"), "{unit}");
}

#[test]
fn what_the_unit_cannot_mend_is_said_on_stderr() {
    let shell = Shell::new();
    shell.write("bellwether.toml", "[supervisor]\nstate_dir = \"/srv/state\"\n");
    let ended = shell.run(&["service", "print"]);
    assert!(ended.stderr.contains("/var/lib/bellwether takes the place of /srv/state"), "{}", ended.stderr);
    let reload = ["Type=notify-reload", "ExecReload=/bin/kill -HUP $MAINPID"];
    assert_eq!(reload.iter().filter(|line| has_line(&ended.stdout, line)).count(), 1, "{}", ended.stdout);
}
