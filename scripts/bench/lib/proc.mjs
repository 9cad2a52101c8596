// What the kernel knows about running processes: CPU time and resident memory, from /proc.

import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';

const TICKS_PER_SECOND = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

function readOrNull(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null; // The process ended between the listing and the reading.
  }
}

function parseStat(text) {
  // The name may hold spaces and parentheses, so fields are counted from the last one.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [utime, stime, reapedUtime, reapedStime] = fields.slice(11, 15).map(Number);
  return {
    parent: Number(fields[1]),
    cpuMicroseconds: ((utime + stime + reapedUtime + reapedStime) * 1e6) / TICKS_PER_SECOND,
  };
}

function snapshot() {
  const processes = new Map();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const text = readOrNull(`/proc/${entry}/stat`);
    if (text) processes.set(Number(entry), parseStat(text));
  }
  return processes;
}

/** The process ids of `root` and everything below it. */
export function processTree(root, processes = snapshot()) {
  const tree = processes.has(root) ? [root] : [];
  // The list grows while it is walked: that is what makes it reach every generation.
  for (const parent of tree) {
    for (const [pid, { parent: itsParent }] of processes) {
      if (itsParent === parent) tree.push(pid);
    }
  }
  return tree;
}

/**
 * CPU microseconds used so far by the trees under `roots`: user and system time of every living process plus
 * what each has reaped from its dead children, so that the sum never falls when a child ends.
 */
export function cpuMicroseconds(roots) {
  const processes = snapshot();
  const pids = new Set(roots.flatMap((root) => processTree(root, processes)));
  let sum = 0;
  for (const pid of pids) sum += processes.get(pid).cpuMicroseconds;
  return sum;
}

/** The command name of a process, or an empty string when it is gone. */
export function commandName(pid) {
  return (readOrNull(`/proc/${pid}/comm`) ?? '').trim();
}

/** Resident bytes of one process, 0 when it is gone. */
export function residentBytes(pid) {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readOrNull(`/proc/${pid}/status`) ?? '');
  return match ? Number(match[1]) * 1024 : 0;
}
