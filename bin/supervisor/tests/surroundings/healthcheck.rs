//! `healthcheck` beside a running supervisor, whatever it supervises.

use std::time::Duration;

use test_support::eventually;

use crate::shell::{Ended, Shell};

const LIMIT: Duration = Duration::from_secs(30);

/// Takes the first inherited socket and gives everybody the answer in its argument.
const ANSWERER: &str = "open(my $l, '+<&=', 3) or die; while (accept(my $c, $l)) { sysread $c, my $r, 4096; \
                        syswrite $c, $ARGV[0]; close $c }";

const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// The end of a health check once there is a supervisor to ask.
fn first_verdict(shell: &Shell) -> Ended {
    eventually(LIMIT, || {
        let ended = shell.run(&["healthcheck"]);
        (ended.code != 3).then_some(ended)
    })
}

#[test]
fn without_a_supervisor_it_ends_with_3_and_one_line() {
    let ended = Shell::new().run(&["healthcheck"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""));
    assert!(ended.stderr.contains("no supervisor is running") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
}

#[test]
fn our_own_service_is_healthy_from_ready_to_stop_over_tcp_and_unix_sockets() {
    for listen in ["0.0.0.0:0", "unix:http.sock"] {
        let shell = Shell::new();
        let mut supervisor = shell.start(&["--migrate", "--workers", "1", "--listen", listen], &[]);
        let verdict = eventually(LIMIT, || {
            let ended = shell.run(&["healthcheck"]);
            if ended.code == 0 { Ok(ended) } else { Err(ended.stderr) }
        });
        assert_eq!((verdict.stdout.as_str(), verdict.stderr.as_str()), ("", ""));
        assert_eq!(shell.run(&["stop"]).code, 0);
        assert!(supervisor.wait_within(LIMIT).is_some_and(|status| status.success()));
        assert_eq!(shell.run(&["healthcheck"]).code, 3);
    }
}

#[test]
fn a_program_without_readyz_is_healthy_when_all_its_workers_are_ready() {
    for answer in [NOT_FOUND, "SSH-2.0-OpenSSH_9.2\r\n"] {
        let shell = Shell::new();
        let flags = ["--workers", "2", "--listen", "127.0.0.1:0", "--set", "supervisor.min_uptime=50ms"];
        let _supervisor = shell.start(&flags, &["perl", "-e", ANSWERER, answer]);
        eventually(LIMIT, || {
            let ended = shell.run(&["healthcheck"]);
            if ended.code == 0 { Ok(()) } else { Err(ended.stderr) }
        });
    }
}

#[test]
fn a_worker_that_is_missing_and_an_answer_that_is_not_well_are_told_in_one_line() {
    let one_ends = format!("exit 1 if $ENV{{WORKER_ID}}; {ANSWERER}");
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let cases = [
        ("2", one_ends.as_str(), NOT_FOUND, "1 of 2 workers are ready"),
        ("1", ANSWERER, unavailable, "answers GET /readyz with 503"),
        ("1", "close STDOUT; open(my $l, '+<&=', 3); close $l while accept(my $c, $l)", "", "does not answer"),
    ];
    for (workers, program, answer, expected) in cases {
        let shell = Shell::new();
        let flags = ["--workers", workers, "--listen", "127.0.0.1:0", "--set", "supervisor.min_uptime=50ms"];
        let _supervisor = shell.start(&flags, &["perl", "-e", program, answer]);
        assert!(matches!(first_verdict(&shell).code, 0 | 1));
        let verdict = eventually(LIMIT, || {
            let ended = shell.run(&["healthcheck"]);
            if ended.stderr.contains(expected) { Ok(ended) } else { Err(ended.stderr) }
        });
        assert_eq!((verdict.code, verdict.stdout.as_str(), verdict.stderr.lines().count()), (1, "", 1), "{verdict:?}");
    }
}
