// Load: wrk for the measured rounds, and a client of one request per connection for the spread over workers.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const SCRIPT = path.join(import.meta.dirname, '..', 'wrk', 'load.lua');

/** Connections wrk keeps open. */
export const CONNECTIONS = 64;
/** Client addresses claimed in X-Forwarded-For on limited routes. */
export const IDENTITIES = 1000;
/** wrk's threads: enough that a fast server is kept as busy as a slow one. */
export const WRK_THREADS = os.availableParallelism();

/** The n-th client address; the same list as in wrk/load.lua. */
export function identity(n) {
  return `198.18.${Math.floor(n / 250)}.${(n % 250) + 1}`;
}

/** Runs wrk for whole `seconds` against random members of `targets`; answers the counts of load.lua's `done`. */
export async function wrk({ port, targets, identities, seconds, directory }) {
  const file = path.join(directory, 'targets');
  writeFileSync(file, `${targets.join('\n')}\n`);
  const { stdout } = await promisify(execFile)('wrk', [
    `-t${WRK_THREADS}`, `-c${CONNECTIONS}`, `-d${seconds}s`, '--timeout', '5s', '-s', SCRIPT,
    `http://127.0.0.1:${port}`, '--', file, String(identities),
  ]);
  return JSON.parse(stdout.trimEnd().split('\n').at(-1));
}

/** One GET on `agent`; answers status, headers and body. */
export function get({ port, target, agent, headers = {} }) {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path: target, agent, headers, timeout: 5000 }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => resolve({
        status: response.statusCode,
        headers: response.headers,
        body: Buffer.concat(chunks).toString('utf8'),
      }));
    });
    request.on('timeout', () => request.destroy(new Error(`no answer to GET ${target} within 5 s`)));
    request.on('error', reject);
  });
}

/** `count` times `work(n)`, at most `parallel` at once. */
export async function inParallel(count, parallel, work) {
  let next = 0;
  const lane = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: parallel }, lane));
}

/** `count` fresh connections of one request each; answers how many each worker served by `x-served-by`, and the errors. */
export async function freshConnections({ port, target, count }) {
  const served = {};
  let errors = 0;
  await inParallel(count, CONNECTIONS, async () => {
    try {
      const { headers } = await get({ port, target, agent: false });
      const worker = headers['x-served-by'] ?? 'unnamed';
      served[worker] = (served[worker] ?? 0) + 1;
    } catch {
      errors += 1;
    }
  });
  return { connections: count, served, errors };
}
