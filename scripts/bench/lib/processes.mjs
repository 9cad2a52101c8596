// Starts the processes of the bench, finds them free ports, waits until they answer and stops them all, whatever happens.

import { spawn } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const STOP_SECONDS = 10;

export class Processes {
  #running = [];
  #directory;

  /** `directory`: where each process's output is kept. */
  constructor(directory) {
    this.#directory = directory;
  }

  /** Starts `command` in a process group of its own; resolves once it runs. */
  async start(name, command, args, { env = {}, cwd = this.#directory } = {}) {
    const log = path.join(this.#directory, `${name}.log`);
    const output = openSync(log, 'a');
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', output, output],
      detached: true,
    });
    const started = { name, log, pid: child.pid, ended: null };
    const spawned = new Promise((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    child.once('exit', (code, signal) => (started.ended = signal ?? `exit ${code}`));
    await spawned;
    this.#running.push(started);
    return started;
  }

  /** Waits until `probe()` resolves to something true; an ended process or `seconds` gone is an error with its log. */
  async until(started, seconds, probe) {
    const deadline = Date.now() + seconds * 1000;
    while (Date.now() < deadline) {
      if (started.ended !== null) break;
      if (await probe().catch(() => false)) return;
      await sleep(50);
    }
    const log = readFileSync(started.log, 'utf8').trimEnd().split('\n').slice(-20).join('\n');
    const reason = started.ended ?? `not ready after ${seconds} s`;
    throw new Error(`${started.name}: ${reason}\n${log}`);
  }

  /** Stops everything, the last started first: TERM, and KILL to the group of whatever is left. */
  async stopAll() {
    const stopping = this.#running.splice(0).reverse();
    for (const { pid } of stopping) signal(pid, 'SIGTERM');
    const deadline = Date.now() + STOP_SECONDS * 1000;
    while (Date.now() < deadline && stopping.some(({ ended }) => ended === null)) await sleep(50);
    for (const { pid, ended } of stopping) if (ended === null) signal(-pid, 'SIGKILL');
  }
}

function signal(pid, name) {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** A port of the loopback address that is free now. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
