//! Another program takes the supervisor's place.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use supervise::control::{Client, Reply, Request, Scale};
use supervise::status::SupervisorState;

use crate::cases::{Case, named};
use crate::harness::{Supervised, directory, eventually, signal, under_load, within};

const RELOAD: Request = Request::Reload { binary: None };

pub(crate) fn all() -> Vec<Case> {
    vec![
        named(another_program_takes_the_supervisors_place_and_nobody_notices),
        named(a_program_that_cannot_go_on_has_no_effect),
        named(whoever_waits_for_what_a_stop_prevents_is_told_so),
        named(a_signal_that_comes_while_a_program_takes_over_is_not_lost),
    ]
}

/// A supervisor whose program is a file of its own, so that it can be replaced.
fn with_own_program(words: &[&str]) -> (Supervised, std::path::PathBuf) {
    let directory = directory("");
    let program = directory.path().join("supervisor");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command.arg("role-supervisor").arg(format!("directory={}", directory.path().display())).args(words);
    (Supervised::adopt(directory, command), program)
}

/// Puts another file in the place of a program, as an installation does.
fn install(program: &std::path::Path, content: &[u8]) {
    let new = program.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

fn another_program_takes_the_supervisors_place_and_nobody_notices() {
    let (mut supervised, program) = with_own_program(&["workers=2", "process=redis"]);
    supervised.change(&Request::Scale(Scale::To(3)));
    let (workers, sockets) = (supervised.workers(), supervised.sockets());
    let redis = supervised.status().processes[0].pid;
    install(&program, &fs::read(std::env::current_exe().unwrap()).unwrap());
    let descriptors = supervised.open_descriptors();
    under_load(&supervised, || {
        assert_eq!(supervised.change(&Request::Upgrade), Reply::Done);
        supervised.signal(Signal::SIGUSR2);
        eventually("the signal does the same", || {
            supervised.lines().iter().filter(|line| line.contains("goes on in the place of")).count() == 2
        });
    });
    let status = supervised.status();
    assert_eq!(status.supervisor.version, "the next release");
    assert_eq!((status.supervisor.pid, status.supervisor.workers_wanted), (supervised.pid(), 3));
    assert_eq!((supervised.workers(), status.processes[0].pid), (workers.clone(), redis), "all are kept");
    assert!(status.workers.iter().all(|worker| worker.connections == Some(3)), "what they told is known: {status:?}");
    let lost: Vec<_> = sockets.difference(&supervised.sockets()).cloned().collect();
    // The signal pipe is the program's own, and clients come and go.
    assert!(lost.len() <= 4, "{lost:?} of {sockets:?}");
    eventually("no descriptor has leaked", || supervised.open_descriptors() <= descriptors);

    signal(workers[1], Signal::SIGKILL);
    within(Duration::from_secs(2), "a killed worker is replaced", || supervised.replacement(1, workers[1]).is_some());
    assert_eq!(supervised.change(&RELOAD), Reply::Done);
    assert_eq!(supervised.workers().len(), 3);
    eventually("output is still captured", || {
        supervised.lines().iter().filter(|line| line.starts_with("w2| ")).count() > 1
    });
    supervised.signal(Signal::SIGTERM);
    assert_eq!(supervised.ends(Duration::from_secs(10)).code(), Some(0));
    assert!(!supervised.socket().exists());
}

fn a_program_that_cannot_go_on_has_no_effect() {
    let (supervised, program) = with_own_program(&["workers=2"]);
    let workers = supervised.workers();
    let bad: [(&[u8], &str); 3] = [
        (b"no program at all", "exited with code 127 when it was tried"),
        (b"#!/bin/sh\necho this release is broken >&2\nexit 78\n", "exited with code 78 when it was tried"),
        (b"#!/bin/sh\nexec sleep 60\n", "was ended by signal 9 (SIGKILL) when it was tried"),
    ];
    for (content, why) in bad {
        install(&program, content);
        let reply = supervised.change(&Request::Upgrade);
        let Reply::Failed { code: 1, message } = &reply else { panic!("{reply:?}") };
        assert!(message.contains(why) && message.ends_with("nothing has changed"), "{message}");
        assert_eq!(supervised.workers(), workers);
        supervised.ask(0).unwrap();
    }
    eventually("what it said is in the log", || supervised.line("upgrade| this release is broken").is_some());

    let directory = directory("never-ready");
    let starting = Supervised::launch(directory, &[]);
    eventually("it answers", || Client::connect(&starting.socket()).is_ok());
    let message = "not now: the workers have not all been ready yet".to_owned();
    assert_eq!(starting.change(&Request::Upgrade), Reply::Failed { code: 75, message });

    let unchanged = supervised.client().ping().unwrap();
    assert_eq!(unchanged.0, supervised.pid());
}

fn whoever_waits_for_what_a_stop_prevents_is_told_so() {
    let mut reloading = Supervised::start(&["canary_ms=60000"]);
    let replies = reloading.client().command(&RELOAD).unwrap();
    eventually("it has begun", || reloading.status().supervisor.state == SupervisorState::Reloading);
    reloading.signal(Signal::SIGTERM);
    let last = replies.map(Result::unwrap).last();
    assert_eq!(last, Some(Reply::Failed { code: 4, message: "the supervisor ends".to_owned() }));
    assert_eq!(reloading.ends(Duration::from_secs(10)).code(), Some(0));

    let (mut upgrading, program) = with_own_program(&[]);
    install(&program, b"#!/bin/sh\nexec sleep 60\n");
    let replies = upgrading.client().command(&Request::Upgrade).unwrap();
    eventually("it is tried", || upgrading.line(" is tried (pid ").is_some());
    upgrading.signal(Signal::SIGTERM);
    let last = replies.map(Result::unwrap).last();
    assert_eq!(last, Some(Reply::Failed { code: 75, message: "the supervisor ends".to_owned() }));
    assert_eq!(upgrading.ends(Duration::from_secs(10)).code(), Some(0));
}

fn a_signal_that_comes_while_a_program_takes_over_is_not_lost() {
    let own = std::env::current_exe().unwrap();
    for round in 0..20 {
        let (mut supervised, program) = with_own_program(&["workers=1"]);
        // The rehearsal ends, which is the sign to take over, and a moment later somebody stops the service.
        let stop = "i=0; while [ $i -lt $0 ]; do i=$((i + 1)); done; kill -TERM $SUPERVISOR";
        let script = format!(
            "#!/bin/sh\n[ -z \"$BELLWETHER_REHEARSAL\" ] && exec {} \"$@\"\n\
             export SUPERVISOR=$PPID\nsh -c '{stop}' {} &\nexit 0\n",
            own.display(),
            round * 40,
        );
        install(&program, script.as_bytes());
        supervised.signal(Signal::SIGUSR2);
        assert_eq!(supervised.ends(Duration::from_secs(10)).code(), Some(0), "round {round}");
    }
}
