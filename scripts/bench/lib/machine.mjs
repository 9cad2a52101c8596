// What the figures were measured on, and which version of what was measured.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const ROOT = path.join(import.meta.dirname, '..', '..', '..');

// Some programs print their version on stderr and wrk's exit code is 1, so both are taken as they come.
function firstLine(command) {
  const output = execFileSync('sh', ['-c', `${command} 2>&1 || true`], { encoding: 'utf8', cwd: ROOT });
  return output.split('\n', 1)[0].trim();
}

export function machine() {
  const release = /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'));
  return {
    cpu: os.cpus()[0].model.trim(),
    cores: os.availableParallelism(),
    memory_bytes: os.totalmem(),
    kernel: os.release(),
    os: release ? release[1] : os.type(),
  };
}

/** The commit measured; says so when the tree holds more than it. */
export function commit() {
  const hash = firstLine('git rev-parse --short=12 --verify HEAD');
  if (!/^[0-9a-f]{12}$/.test(hash)) return 'none yet';
  // The report itself is written into the tree and must not make it look changed.
  const changed = firstLine("git status --porcelain -- . ':!scripts/bench/RESULTS.md' ':!scripts/bench/results.json'");
  return changed === '' ? hash : `${hash} and uncommitted changes`;
}

export function versions() {
  const locked = (peer, name) => {
    const lock = JSON.parse(readFileSync(path.join(ROOT, 'scripts/bench/peers', peer, 'package-lock.json'), 'utf8'));
    return `${name} ${lock.packages[`node_modules/${name}`].version}`;
  };
  const all = (peer, names) => names.map((name) => locked(peer, name)).join(', ');
  const crate = /name = "actix-web"\nversion = "([^"]+)"/.exec(readFileSync(path.join(ROOT, 'scripts/bench/peers/actix-hello/Cargo.lock'), 'utf8'));
  return {
    rustc: firstLine('rustc --version'),
    nginx: firstLine('nginx -v').replace(/^nginx version: nginx\//, ''),
    redis: /v=(\S+)/.exec(firstLine('redis-server --version'))?.[1] ?? 'unknown',
    wrk: firstLine('wrk -v').split(' ', 2).join(' '),
    node: process.version,
    express: all('express', ['express', 'express-rate-limit', 'rate-limit-redis', 'ioredis']),
    fastify: all('fastify', ['fastify', '@fastify/rate-limit', 'ioredis']),
    actix: `actix-web ${crate[1]}`,
  };
}
