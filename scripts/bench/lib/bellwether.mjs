// The release cluster as the bench runs it: `supervisor up` on generated settings, its own Redis on a unix socket.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';

import { IDENTITIES, get, identity, inParallel } from './load.mjs';
import { PRODUCTS } from './payloads.mjs';
import { commandName, processTree } from './proc.mjs';
import { freePort } from './processes.mjs';

const READY_SECONDS = 60;
const CATEGORIES = '/api/v1/categories';
const PRODUCT_LIST = '/api/v1/products';
const LEASED = `${PRODUCT_LIST}?limit=3`;
// Ids of products begin with 0 and their slugs with a letter, which leaves this to another policy.
const BLOCKED = '/api/v1/products/1-blocked';
const SLUGS = [...'abcdefghijklmnopqrstuvwxyz'].map((letter) => `"${PRODUCT_LIST}/${letter}*"`).join(', ');

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
name = "leased"
paths = ["${PRODUCT_LIST}"]
key = "address"
limit = 1000000000
window = "24h"
lease = "auto"

[[rate_limit.policy]]
name = "twice"
paths = [${SLUGS}]
key = "address"
limit = 1000000000
window = "24h"

[[rate_limit.policy]]
name = "twice-a-minute"
paths = [${SLUGS}]
key = "address"
limit = 1000000000
window = "1m"

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
  const socketOfRedis = path.join(state, 'redis', 'redis.sock');
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
      leased: { targets: [LEASED], identities: IDENTITIES, status: 200 },
      twice: { targets: payloads.slugs.map((slug) => `${PRODUCT_LIST}/${slug}`), identities: IDENTITIES, status: 200 },
      product: { targets: payloads.products.map(([id]) => `${PRODUCT_LIST}/${id}`), identities: IDENTITIES, status: 200 },
    },
    payloads,
    redisCalls: () => scriptCalls(socketOfRedis),
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
    const items = await productItems(body);
    const products = [];
    await inParallel(items.length, 16, async (n) => {
      products[n] = [items[n].id, await body(`${PRODUCT_LIST}/${items[n].id}`)];
    });
    const slugs = items.map(({ slug }) => slug);
    // The first request of an address passes the policy, and there is no such product.
    await body(BLOCKED, 404);
    const [plain, limited, leased] = [await body('/livez'), await body(CATEGORIES), await body(LEASED)];
    return { plain, limited, leased, blocked: await body(BLOCKED, 429), products, slugs };
  } finally {
    agent.destroy();
  }
}

async function productItems(body) {
  const items = [];
  let cursor = '';
  do {
    const page = JSON.parse(await body(`${PRODUCT_LIST}?limit=100${cursor}`));
    items.push(...page.items);
    cursor = page.next_cursor === null ? null : `&cursor=${encodeURIComponent(page.next_cursor)}`;
  } while (cursor !== null && items.length < PRODUCTS);
  return items.slice(0, PRODUCTS);
}

/** Scripts that a Redis has run so far. */
function scriptCalls(socket) {
  return new Promise((resolve, reject) => {
    const connection = net.connect(socket, () => connection.write('INFO commandstats\r\nQUIT\r\n'));
    let text = '';
    connection.on('data', (chunk) => (text += chunk));
    connection.on('error', reject);
    connection.on('end', () => resolve([...text.matchAll(/^cmdstat_eval(?:sha)?:calls=(\d+)/gm)].reduce((sum, [, calls]) => sum + Number(calls), 0)));
  });
}
