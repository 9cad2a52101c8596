// The peers: how each is started, and what it answers on which route.
//
// A started system is { name, port, roots, redis, routes, workers() }: `roots` are the processes whose trees are
// charged to it, `redis` the one of them that is its Redis (null: none), `routes` maps a route's name to its targets,
// the number of client identities and the status every answer must have, `workers()` lists the processes that serve.

import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { IDENTITIES, get } from './load.mjs';
import { typicalProduct } from './payloads.mjs';
import { processTree } from './proc.mjs';
import { freePort } from './processes.mjs';

const READY_SECONDS = 15;
const PEERS = path.join(import.meta.dirname, '..', 'peers');

const answers = (port, target) => async () => (await get({ port, target, agent: false })).status === 200;
// The same requests for every peer, also for nginx, which looks at neither the product nor the address.
function peerRoutes(payloads) {
  return {
    plain: { targets: ['/livez'], identities: 0, status: 200 },
    limited: { targets: ['/limited'], identities: IDENTITIES, status: 200 },
    blocked: { targets: ['/blocked'], identities: IDENTITIES, status: 429 },
    product: { targets: payloads.products.map(([id]) => `/api/v1/products/${id}`), identities: IDENTITIES, status: 200 },
  };
}

const children = (root) => () => processTree(root).slice(1);

/** nginx answering constants: the floor of what an HTTP answer costs. */
export async function startNginx({ processes, directory, workers, payloads }) {
  const port = await freePort();
  const constants = {
    plain: ['= /livez', payloads.plain],
    limited: ['= /limited', payloads.limited],
    leased: ['= /leased', payloads.leased],
    blocked: ['= /blocked', payloads.blocked],
    product: ['/api/v1/products/', typicalProduct(payloads)],
  };
  const configuration = path.join(directory, 'nginx.conf');
  writeFileSync(configuration, nginxConfiguration({ directory, port, workers, constants }));
  const nginx = await processes.start('nginx', 'nginx', ['-p', directory, '-c', configuration, '-e', path.join(directory, 'nginx.error.log')]);
  await processes.until(nginx, READY_SECONDS, answers(port, '/livez'));
  const routes = peerRoutes(payloads);
  routes.blocked.status = 200;
  routes.leased = { targets: ['/leased'], identities: IDENTITIES, status: 200 };
  return { name: 'nginx', port, roots: [nginx.pid], redis: null, routes, workers: children(nginx.pid) };
}

function nginxConfiguration({ directory, port, workers, constants }) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `daemon off;
worker_processes ${workers};
pid ${directory}/nginx.pid;
events { worker_connections 4096; }
http {
  access_log off;
  default_type application/json;
  keepalive_requests 1000000000;
${temporary.map((name) => `  ${name}_temp_path ${directory}/nginx-${name};`).join('\n')}
  geo $dollar { default "$"; }
  server {
    listen 127.0.0.1:${port} reuseport;
${Object.entries(constants).map(nginxLocation).join('\n')}
  }
}
`;
}

// nginx reads at most 4 KiB as one parameter, so a longer body is put together from variables.
function nginxLocation([route, [location, body]]) {
  const quoted = (text) => `"${text.replace(/["\\]/g, '\\$&').replaceAll('$', '${dollar}')}"`;
  const pieces = body.match(/[\s\S]{1,1500}/gu);
  const set = pieces.map((piece, n) => `set $${route}_${n} ${quoted(piece)};`).join(' ');
  const answer = pieces.length === 1
    ? `return 200 ${quoted(body)};`
    : `${set} return 200 "${pieces.map((_, n) => `\${${route}_${n}}`).join('')}";`;
  return `    location ${location} { ${answer} }`;
}

/** Actix-web answering one constant, without anything of ours. */
export async function startActix({ processes, executable, workers, payloads }) {
  const port = await freePort();
  const env = { BENCH_PORT: String(port), BENCH_WORKERS: String(workers), BENCH_BODY: payloads.plain };
  const actix = await processes.start('actix', executable, [], { env });
  await processes.until(actix, READY_SECONDS, answers(port, '/livez'));
  const routes = { plain: { targets: ['/livez'], identities: 0, status: 200 } };
  return { name: 'actix', port, roots: [actix.pid], redis: null, routes, workers: () => [actix.pid] };
}

/** One of the Node stacks under peers/, with a Redis of its own. */
export async function startNode(name, { processes, directory, workers, payloads }) {
  const port = await freePort();
  const redis = await startRedis(`${name}-redis`, { processes, directory });
  const payloadFile = path.join(directory, 'payloads.json');
  writeFileSync(payloadFile, JSON.stringify(payloads));
  const node = await processes.start(name, process.execPath, [path.join(PEERS, name, 'server.mjs')], {
    env: {
      NODE_ENV: 'production',
      BENCH_PORT: String(port),
      BENCH_WORKERS: String(workers),
      BENCH_REDIS: redis.socket,
      BENCH_PAYLOADS: payloadFile,
    },
  });
  await processes.until(node, READY_SECONDS, async () => readFileSync(node.log, 'utf8').includes('READY'));
  const routes = peerRoutes(payloads);
  return { name, port, roots: [node.pid, redis.pid], redis: redis.pid, routes, workers: children(node.pid) };
}

async function startRedis(name, { processes, directory }) {
  const socket = path.join(directory, `${name}.sock`);
  const redis = await processes.start(name, 'redis-server', [
    '--port', '0', '--unixsocket', socket, '--unixsocketperm', '700', '--save', '', '--appendonly', 'no', '--dir', directory,
  ]);
  await processes.until(redis, READY_SECONDS, async () => readFileSync(redis.log, 'utf8').includes('eady to accept connections'));
  return { pid: redis.pid, socket };
}
