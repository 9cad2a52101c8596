// What both Node peers share: Node's cluster with one worker per core, and the payloads they answer.
//
// Environment: BENCH_PORT, BENCH_WORKERS, BENCH_REDIS (a unix socket), BENCH_PAYLOADS (a JSON file: `plain`,
// `limited`, `blocked` are bodies, `products` is a list of [id, body]).

import cluster from 'node:cluster';
import { readFileSync } from 'node:fs';

/** Forks the workers from the primary and prints READY when all listen; in a worker calls `serve(port)`. */
export function runCluster(serve) {
  if (!cluster.isPrimary) {
    serve(Number(process.env.BENCH_PORT));
    return;
  }
  const wanted = Number(process.env.BENCH_WORKERS);
  let listening = 0;
  cluster.on('listening', () => {
    listening += 1;
    if (listening === wanted) console.log('READY');
  });
  // A worker that dies ends the peer: figures of a peer that lost a worker mean nothing.
  cluster.on('exit', (worker) => {
    if (!worker.exitedAfterDisconnect) process.exit(1);
  });
  process.on('SIGTERM', () => process.exit(0));
  for (let n = 0; n < wanted; n += 1) cluster.fork();
}

/** The bodies to answer, and `products` as a map that stands in for a database. */
export function loadPayloads() {
  const payloads = JSON.parse(readFileSync(process.env.BENCH_PAYLOADS, 'utf8'));
  return { ...payloads, products: new Map(payloads.products) };
}

/** Options of the ioredis client. */
export const REDIS = { path: process.env.BENCH_REDIS, enableAutoPipelining: true };

/** Limits: one that is never reached, and one that every client is over after its first request. */
export const NEVER_REACHED = 1_000_000_000;
export const WINDOW_MS = 24 * 60 * 60 * 1000;

const PRODUCT_TTL_SECONDS = 60;

/** The product's body, cached aside in Redis as people write it; undefined when there is none. */
export async function cachedProduct(redis, products, id) {
  const key = `product:${id}`;
  const cached = await redis.get(key);
  if (cached !== null) return cached;
  const body = products.get(id);
  if (body !== undefined) await redis.set(key, body, 'EX', PRODUCT_TTL_SECONDS);
  return body;
}
