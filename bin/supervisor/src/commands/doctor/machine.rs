//! The kernel's limits and the processors, against what the configuration asks for.

use std::fs;

use config::Settings;
use supervise::status::Status;

use super::check::Check;

/// Descriptors of a worker that are not clients: the database, Redis, sockets, files.
const DESCRIPTORS_BESIDE: u64 = 256;

/// A queue that holds fewer clients than this refuses some while a worker is being replaced.
const SHORT_QUEUE: u64 = 1_024;

pub(super) fn examine(settings: &Settings, running: Option<&Status>) -> Vec<Check> {
    let usable = usable_processors(running);
    let workers = running.map_or_else(|| super::workers(settings, usable), |status| status.supervisor.workers_wanted);
    // A running supervisor's limit counts, not that of this shell.
    let process = running.map_or_else(|| "self".to_owned(), |status| status.supervisor.pid.to_string());
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap_or_default();
    let connections = u64::from(settings.http.max_connections);
    let checks = [
        hard_limit(&limits).map(|limit| files(limit, connections)),
        number("/proc/sys/fs/file-max").map(|limit| all_files(limit, u64::from(workers), connections)),
        number("/proc/sys/net/core/somaxconn").map(backlog),
        Some(processors(usable, workers)),
    ];
    checks.into_iter().flatten().collect()
}

/// As the supervisor counts them: with its affinity and the quota of its cgroup.
fn usable_processors(running: Option<&Status>) -> u32 {
    let own = || std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
    running.map(|status| status.host.cpus).filter(|count| *count > 0).unwrap_or_else(own)
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The hard limit of open files in the text of `/proc/<pid>/limits`; the supervisor raises the soft one to it.
fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

fn files(limit: u64, connections: u64) -> Check {
    let needed = connections + DESCRIPTORS_BESIDE;
    if limit >= needed {
        return Check::ok("machine.files", format!("a process may open {limit} files; a worker needs up to {needed}"));
    }
    Check::warning(
        "machine.files",
        format!(
            "a process may open {limit} files; a worker with {connections} connections (http.max_connections) needs {needed}"
        ),
        format!("LimitNOFILE={needed} in the unit, or ulimit -n {needed}"),
    )
}

fn all_files(limit: u64, workers: u64, connections: u64) -> Check {
    let needed = workers * (connections + DESCRIPTORS_BESIDE);
    let summary = format!("the machine may open {limit} files; {workers} workers need up to {needed}");
    if limit >= needed {
        return Check::ok("machine.all_files", summary);
    }
    Check::warning("machine.all_files", summary, format!("sysctl -w fs.file-max={}", needed * 2))
}

fn backlog(limit: u64) -> Check {
    let summary = format!("{limit} clients can wait at each worker's socket (net.core.somaxconn)");
    if limit >= SHORT_QUEUE {
        return Check::ok("machine.backlog", summary);
    }
    Check::warning("machine.backlog", summary, "sysctl -w net.core.somaxconn=4096")
}

fn processors(usable: u32, workers: u32) -> Check {
    let summary = format!("{workers} workers on {usable} usable processors");
    if workers <= usable {
        return Check::ok("machine.processors", summary);
    }
    Check::warning(
        "machine.processors",
        format!("{summary}: they take turns, and each one's clients wait"),
        "supervisor.workers = \"max\", or a larger share for the cgroup",
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::Severity;
    use super::*;

    #[test]
    fn the_hard_limit_is_read_out_of_what_the_kernel_shows() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             1                    2                    processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(hard_limit(text), Some(524_288));
        assert_eq!(hard_limit("Max open files   unlimited   unlimited   files"), Some(u64::MAX));
        assert_eq!(hard_limit(""), None);
        let own = fs::read_to_string("/proc/self/limits").unwrap();
        assert!(hard_limit(&own).is_some_and(|limit| limit > 0), "{own}");
    }

    #[test]
    fn too_little_is_a_warning_with_the_number_that_is_enough() {
        let cases = [
            (files(4_352, 4_096), Severity::Ok),
            (files(4_351, 4_096), Severity::Warning),
            (all_files(8_704, 2, 4_096), Severity::Ok),
            (all_files(8_703, 2, 4_096), Severity::Warning),
            (backlog(4_096), Severity::Ok),
            (backlog(128), Severity::Warning),
            (processors(2, 2), Severity::Ok),
            (processors(2, 3), Severity::Warning),
        ];
        for (check, expected) in cases {
            assert_eq!(check.severity, expected, "{check:?}");
            assert_eq!(check.fix.is_some(), expected == Severity::Warning, "{check:?}");
        }
        assert!(files(1_024, 4_096).fix.unwrap().contains("4352"));
    }
}
