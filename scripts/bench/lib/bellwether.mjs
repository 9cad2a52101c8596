// The release cluster as the bench runs it: `supervisor up` on generated settings, its own Redis on a unix socket.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { promisify } from 'node:util';

import { IDENTITIES, get, identity, inParallel } from './load.mjs';
import { PRODUCTS } from './payloads.mjs';
import { commandName, processTree } from './proc.mjs';
import { freePort } from './processes.mjs';

const READY_SECONDS = 60;
const CATEGORIES = '/api/v1/categories';
const PRODUCT_LIST = '/api/v1/products';
// A path of the product route that the policy of the product ids, which all begin with 0, leaves to another one.
const BLOCKED = '/api/v1/products/blocked';

const SETTINGS = `[http]
trusted_proxies = ["127.0.0.1/32"]

[[rate_limit.policy]]
name = "limited"
paths = ["${CATEGORIES}"]
key = "address"
limit = 1000000000
window = "24h"

[[rate_limit.policy]]
name = "product"
paths = ["${PRODUCT_LIST}/0*"]
key = "address"
limit = 1000000000
window = "24h"

[[rate_limit.policy]]
name = "blocked"
paths = ["${BLOCKED}"]
key = "address"
limit = 1
window = "24h"
`;

/** Starts the cluster from `target/release` and reads from it the bodies that the peers will answer. */
export async function startBellwether({ processes, directory, workers, release }) {
  const port = await freePort();
  const admin = await freePort();
  const state = path.join(directory, 'bellwether');
  const socket = path.join(directory, 'supervisor.sock');
  const settings = path.join(directory, 'bellwether.toml');
  writeFileSync(settings, SETTINGS);
  const supervisor = path.join(release, 'supervisor');
  const started = await processes.start('supervisor', supervisor, [
    'up', '--config', settings, '--socket', socket, '--state-dir', state, '--seed', 'small',
    '--listen', `127.0.0.1:${port}`, '--admin-listen', `127.0.0.1:${admin}`, '--workers', String(workers),
  ]);
  const ready = async () => (await get({ port, target: '/readyz', agent: false })).status === 200;
  await processes.until(started, READY_SECONDS, ready);

  const payloads = await readPayloads(port);
  const status = async () => {
    const { stdout } = await promisify(execFile)(supervisor, ['status', '--json', '--socket', socket]);
    return JSON.parse(stdout);
  };
  const isRedis = (pid) => /^(redis|valkey)-server/.test(commandName(pid));
  return {
    name: 'bellwether',
    port,
    roots: [started.pid],
    redis: processTree(started.pid).find(isRedis) ?? null,
    routes: {
      plain: { targets: ['/livez'], identities: 0, status: 200 },
      limited: { targets: [CATEGORIES], identities: IDENTITIES, status: 200 },
      blocked: { targets: [BLOCKED], identities: IDENTITIES, status: 429 },
      product: { targets: payloads.products.map(([id]) => `${PRODUCT_LIST}/${id}`), identities: IDENTITIES, status: 200 },
    },
    payloads,
    workers: async () => (await status()).workers.map(({ pid }) => pid),
  };
}

async function readPayloads(port) {
  const agent = new http.Agent({ keepAlive: true });
  const body = async (target, wanted = 200) => {
    const answer = await get({ port, target, agent, headers: { 'x-forwarded-for': identity(0) } });
    if (answer.status !== wanted) throw new Error(`bellwether: GET ${target} answered ${answer.status}, not ${wanted}: ${answer.body}`);
    return answer.body;
  };
  try {
    const ids = await productIds(body);
    const products = [];
    await inParallel(ids.length, 16, async (n) => {
      products[n] = [ids[n], await body(`${PRODUCT_LIST}/${ids[n]}`)];
    });
    // The first request of an address passes the policy, and there is no such product.
    await body(BLOCKED, 404);
    return { plain: await body('/livez'), limited: await body(CATEGORIES), blocked: await body(BLOCKED, 429), products };
  } finally {
    agent.destroy();
  }
}

async function productIds(body) {
  const ids = [];
  let cursor = '';
  do {
    const page = JSON.parse(await body(`${PRODUCT_LIST}?limit=100${cursor}`));
    ids.push(...page.items.map(({ id }) => id));
    cursor = page.next_cursor === null ? null : `&cursor=${encodeURIComponent(page.next_cursor)}`;
  } while (cursor !== null && ids.length < PRODUCTS);
  return ids.slice(0, PRODUCTS);
}
