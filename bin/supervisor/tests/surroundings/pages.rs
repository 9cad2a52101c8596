//! Completions that shells can load, and manual pages that `man` can render.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::shell::{Ended, Shell};

/// Whether there is such a program on this machine.
fn is_installed(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    asked.is_ok_and(|output| output.status.success())
}

#[test]
fn completions_can_be_loaded_by_the_shell_they_are_for() {
    let shell = Shell::new();
    for (name, word) in [("bash", "healthcheck"), ("zsh", "healthcheck"), ("fish", "healthcheck")] {
        let ended = shell.run(&["completions", name]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{name}");
        assert!(ended.stdout.contains(word), "{name} does not know {word}");
        shell.write(name, &ended.stdout);
        if is_installed(name) {
            let checked = Ended::of(Command::new(name).arg("-n").arg(shell.path(name)));
            assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "{name}");
        }
    }
}

#[test]
fn a_reader_of_completions_who_leaves_is_no_error() {
    let shell = Shell::new();
    let mut child = shell.command(&["completions", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn every_command_has_a_manual_page_with_its_examples() {
    let shell = Shell::new();
    let ended = shell.run(&["man", "pages/man1"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    let pages = names(&shell.path("pages/man1"));
    for page in ["supervisor.1", "supervisor-reload.1", "supervisor-config-show.1"] {
        assert!(pages.iter().any(|name| name == page), "{page} is missing in {pages:?}");
    }
    for page in pages {
        let text = fs::read_to_string(shell.path("pages/man1").join(&page)).unwrap();
        let title = format!("\n.TH {} 1 ", page.trim_end_matches(".1"));
        assert!(text.contains(&title), "{page} has no title:\n{text}");
        assert!(text.contains("Example"), "{page} has no example");
    }
    assert_eq!(shell.run(&["man", "/proc/none"]).code, 73);
}

#[test]
fn the_main_page_is_printed_and_rendered_with_the_exit_codes() {
    let shell = Shell::new();
    let page = shell.run(&["man"]);
    assert!(page.stdout.contains("\n.TH supervisor 1 "), "{}", page.stdout);
    shell.write("supervisor.1", &page.stdout);
    if is_installed("man") {
        let rendered = Ended::of(Command::new("man").arg("-l").arg(shell.path("supervisor.1")).env("MANWIDTH", "100"));
        assert_eq!((rendered.code, rendered.stderr.as_str()), (0, ""));
        assert!(rendered.stdout.contains("78  the configuration is invalid"), "{}", rendered.stdout);
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
