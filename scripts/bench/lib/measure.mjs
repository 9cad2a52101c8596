// The measuring itself: are the answers right, what do they cost, what is left in memory, how are connections spread.

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { CONNECTIONS, IDENTITIES, WRK_THREADS, freshConnections, get, identity, inParallel, wrk } from './load.mjs';
import { commit, machine, versions } from './machine.mjs';
import { PRODUCTS, typicalProduct } from './payloads.mjs';
import { cpuMicroseconds, processTree, residentBytes } from './proc.mjs';
import { ROUTES, barsOf, deviation, rowsOf } from './report.mjs';

const FRESH_CONNECTIONS = 20_000;
const WARM_UP_REQUESTS = 20_000;
// A denied answer turns into an admitted one when an address's window ends, which a run may happen to meet.
const TOLERATED_SHARE = 0.001;

/** Puts every address over its limit on the blocked route and checks that every route gives the status and the bytes it should. */
export async function checkAnswers(systems, payloads) {
  const bodies = { ...payloads, product: payloads.products[0][1], twice: payloads.products[0][1] };
  for (const system of systems) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
    const ask = (target, n) => get({ port: system.port, target, agent, headers: { 'x-forwarded-for': identity(n) } });
    if (system.routes.blocked) await inParallel(IDENTITIES, 16, (n) => ask(system.routes.blocked.targets[0], n));
    for (const [route, { targets, status }] of Object.entries(system.routes)) {
      const answer = await ask(targets[0], 0);
      const constant = system.name === 'nginx' && route === 'product';
      const body = constant ? typicalProduct(payloads) : bodies[route];
      // A problem's body may name its request, so for it the length is what must agree.
      const same = route === 'blocked' ? answer.body.length === body.length : answer.body === body;
      if (answer.status !== status || !same) {
        throw new Error(`${system.name}: ${route} answered ${answer.status} ${answer.body}, not ${status} ${body}`);
      }
    }
    agent.destroy();
  }
}

/** Warms up, measures round after round until they are done or `deadline` is near, and answers the whole of results.json. */
export async function measure(systems, payloads, { routes, rounds, seconds, warmUpSeconds }, { directory, deadline }) {
  const cells = (round) => routes.flatMap((route) => rotated(systems, round).filter((system) => route in system.routes).map((system) => ({ route, system })));
  progress(`warming up ${cells(0).length} pairs of route and system`);
  for (const { route, system } of cells(0)) await warmUp(system, route, warmUpSeconds, directory);

  const measurements = [];
  let round = 0;
  let longest = 0;
  for (; round < rounds && Date.now() + longest < deadline; round += 1) {
    progress(`round ${round + 1} of ${rounds}`);
    const began = Date.now();
    for (const { route, system } of cells(round)) {
      measurements.push({ round, route, system: system.name, ...(await measureOne(system, route, seconds, directory)) });
    }
    longest = Math.max(longest, Date.now() - began);
  }
  if (round < rounds) progress(`stopped after ${round} of ${rounds} rounds: the time is up`);

  const memory = await Promise.all(systems.map(memoryOf));
  const spread = await spreadOf(systems);
  return {
    schema: 'bellwether.bench/v1',
    date: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
    commit: commit(),
    machine: machine(),
    versions: versions(),
    parameters: { rounds_done: round, seconds, connections: CONNECTIONS, wrk_threads: WRK_THREADS, identities: IDENTITIES, products: PRODUCTS },
    payload_bytes: Object.fromEntries(Object.keys(ROUTES).map((route) => [route, Buffer.byteLength(payloads[route] ?? typicalProduct(payloads))])),
    rows: rowsOf(measurements),
    memory,
    spread,
    bars: barsOf({ measurements, memory, spread }),
    measurements,
  };
}

// Another system goes first in each round, so that none always follows the same neighbour.
function rotated(systems, round) {
  const first = round % systems.length;
  return [...systems.slice(first), ...systems.slice(0, first)];
}

function load(system, route, seconds, directory) {
  const { targets, identities } = system.routes[route];
  return wrk({ port: system.port, targets, identities, seconds, directory });
}

// Counted in requests: Node compiles what is hot while it runs, and on a busy machine a second is not enough for that.
async function warmUp(system, route, seconds, directory) {
  let requests = 0;
  for (let second = 0; second < seconds && requests < WARM_UP_REQUESTS; second += 1) {
    requests += (await load(system, route, 1, directory)).requests;
  }
}

async function measureOne(system, route, seconds, directory) {
  await sleep(100);
  const redis = () => (system.redis === null ? 0 : cpuMicroseconds([system.redis]));
  const calls = async () => (system.redisCalls ? system.redisCalls() : null);
  const before = { all: cpuMicroseconds(system.roots), redis: redis(), calls: await calls() };
  const counts = await load(system, route, seconds, directory);
  const after = { all: cpuMicroseconds(system.roots), redis: redis(), calls: await calls() };
  const { requests } = counts;
  const right = system.routes[route].status >= 400 ? counts.status_errors : requests - counts.status_errors;
  const unexpected = requests - right + counts.socket_errors;
  if (requests === 0 || unexpected > requests * TOLERATED_SHARE) {
    throw new Error(`${system.name}: ${unexpected} of ${requests} requests to ${route} went wrong (${counts.socket_errors} by the socket)`);
  }
  return {
    requests,
    unexpected_answers: unexpected,
    requests_per_second: (requests * 1e6) / counts.duration_us,
    p50_us: counts.p50_us,
    p99_us: counts.p99_us,
    cpu_us_per_request: (after.all - before.all) / requests,
    redis_us_per_request: (after.redis - before.redis) / requests,
    redis_calls_per_request: before.calls === null ? null : (after.calls - before.calls) / requests,
  };
}

async function memoryOf(system) {
  const workers = await system.workers();
  const all = new Set(system.roots.flatMap((root) => processTree(root)));
  return {
    system: system.name,
    largest_worker_bytes: Math.max(...workers.map(residentBytes)),
    all_bytes: [...all].reduce((sum, pid) => sum + residentBytes(pid), 0),
  };
}

async function spreadOf(systems) {
  const ours = systems.find(({ name }) => name === 'bellwether');
  if (!ours) return null;
  progress(`${FRESH_CONNECTIONS.toLocaleString('en')} fresh connections`);
  const fresh = await freshConnections({ port: ours.port, target: '/livez', count: FRESH_CONNECTIONS });
  return { ...fresh, deviation: deviation(fresh.served, (await ours.workers()).length) };
}

function progress(text) {
  process.stderr.write(`bench: ${text}\n`);
}
