// Fastify with @fastify/rate-limit over ioredis, in Node's cluster, written as their documentation shows it.
// Products are cached aside in Redis.

import rateLimit from '@fastify/rate-limit';
import fastify from 'fastify';
import { Redis } from 'ioredis';

import { NEVER_REACHED, REDIS, WINDOW_MS, cachedProduct, loadPayloads, runCluster } from '../worker.mjs';

const limited = (max) => ({ config: { rateLimit: { max, timeWindow: WINDOW_MS } } });

async function serve(port) {
  const payloads = loadPayloads();
  const redis = new Redis(REDIS);
  const app = fastify({ trustProxy: '127.0.0.1' });
  await app.register(rateLimit, { global: false, redis });
  app.setErrorHandler((error, request, reply) => {
    if (error.statusCode !== 429) return reply.send(error);
    return reply.code(429).type('application/problem+json').send(payloads.blocked);
  });

  app.get('/livez', async (request, reply) => reply.type('text/plain').send(payloads.plain));
  app.get('/limited', limited(NEVER_REACHED), async (request, reply) => {
    return reply.type('application/json').send(payloads.limited);
  });
  app.get('/blocked', limited(1), async (request, reply) => {
    return reply.type('application/json').send(payloads.limited);
  });
  app.get('/api/v1/products/:id', limited(NEVER_REACHED), async (request, reply) => {
    const body = await cachedProduct(redis, payloads.products, request.params.id);
    if (body === undefined) return reply.code(404).send();
    return reply.type('application/json').send(body);
  });

  await app.listen({ port, host: '127.0.0.1' });
}

runCluster(serve);
