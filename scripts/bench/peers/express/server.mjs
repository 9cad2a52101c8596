// Express with express-rate-limit and rate-limit-redis over ioredis, in Node's cluster, written as their
// documentation shows it. Products are cached aside in Redis.

import express from 'express';
import { rateLimit } from 'express-rate-limit';
import { Redis } from 'ioredis';
import { RedisStore } from 'rate-limit-redis';

import { NEVER_REACHED, REDIS, WINDOW_MS, cachedProduct, loadPayloads, runCluster } from '../worker.mjs';

function limiter(redis, prefix, limit, message) {
  return rateLimit({
    windowMs: WINDOW_MS,
    limit,
    message,
    standardHeaders: 'draft-8',
    legacyHeaders: false,
    store: new RedisStore({ prefix, sendCommand: (command, ...args) => redis.call(command, ...args) }),
  });
}

function serve(port) {
  const payloads = loadPayloads();
  const redis = new Redis(REDIS);
  const app = express();
  app.set('trust proxy', '127.0.0.1');

  app.get('/livez', (request, response) => response.type('text').send(payloads.plain));
  app.get('/limited', limiter(redis, 'limited:', NEVER_REACHED), (request, response) => {
    response.type('json').send(payloads.limited);
  });
  app.get('/blocked', limiter(redis, 'blocked:', 1, payloads.blocked), (request, response) => {
    response.type('json').send(payloads.limited);
  });
  app.get('/api/v1/products/:id', limiter(redis, 'products:', NEVER_REACHED), async (request, response) => {
    const body = await cachedProduct(redis, payloads.products, request.params.id);
    if (body === undefined) response.sendStatus(404);
    else response.type('json').send(body);
  });

  app.listen(port, '127.0.0.1');
}

runCluster(serve);
