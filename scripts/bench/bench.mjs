// The bench's orchestrator: starts the systems, measures them in interleaved rounds, prints and writes the report.
// Called by `run`, which says what it does and checks that everything it needs is there. No dependencies.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { startBellwether } from './lib/bellwether.mjs';
import { checkAnswers, measure } from './lib/measure.mjs';
import { standInPayloads } from './lib/payloads.mjs';
import { startActix, startNginx, startNode } from './lib/peers.mjs';
import { Processes } from './lib/processes.mjs';
import { LABELS, ROUTES, markdown } from './lib/report.mjs';

const ROOT = path.join(import.meta.dirname, '..', '..');

const PEERS = {
  nginx: startNginx,
  actix: (context) => startActix({ ...context, executable: path.join(ROOT, 'target', 'bench', 'release', 'actix-hello') }),
  fastify: (context) => startNode('fastify', context),
  express: (context) => startNode('express', context),
};

async function main() {
  const options = readOptions();
  const deadline = Date.now() + options.budget * 1000;
  const directory = mkdtempSync(path.join(os.tmpdir(), 'bellwether-bench-'));
  const processes = new Processes(directory);
  let stopped = null;
  const stop = () => {
    stopped ??= processes.stopAll().then(() => rmSync(directory, { recursive: true, force: true }));
    return stopped;
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => stop().then(() => process.exit(1)));
  }
  try {
    const { systems, payloads } = await startSystems(options, { processes, directory, workers: os.availableParallelism() });
    await checkAnswers(systems, payloads);
    report(options, await measure(systems, payloads, options, { directory, deadline }));
  } finally {
    await stop();
  }
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      only: { type: 'string', default: '' },
      out: { type: 'string' },
    },
  });
  const only = values.only.split(',').filter(Boolean);
  const chosen = (names) => names.filter((name) => !only.some((word) => names.includes(word)) || only.includes(name));
  const whole = only.length === 0 && !values.quick;
  return {
    routes: chosen(Object.keys(ROUTES)),
    systems: chosen(Object.keys(LABELS)),
    rounds: Number(values.rounds ?? (values.quick ? 2 : 5)),
    seconds: Number(values.seconds ?? (values.quick ? 1 : 4)),
    warmUpSeconds: values.quick ? 3 : 6,
    budget: values.quick ? 85 : 590,
    // Only a whole run replaces the table that is kept.
    out: values.out ?? (whole ? import.meta.dirname : path.join(ROOT, 'target', 'bench')),
  };
}

// Ours first: the peers answer its bytes.
async function startSystems({ systems: wanted, routes }, context) {
  const systems = [];
  let payloads = standInPayloads();
  if (wanted.includes('bellwether')) {
    const ours = await startBellwether({ ...context, release: path.join(ROOT, 'target', 'release') });
    payloads = ours.payloads;
    systems.push(ours);
  }
  for (const name of wanted) {
    if (name in PEERS) systems.push(await PEERS[name]({ ...context, payloads }));
  }
  for (const system of systems) {
    system.routes = Object.fromEntries(routes.filter((route) => route in system.routes).map((route) => [route, system.routes[route]]));
  }
  return { systems, payloads };
}

function report({ out }, results) {
  const text = markdown(results);
  mkdirSync(out, { recursive: true });
  writeFileSync(path.join(out, 'RESULTS.md'), text);
  writeFileSync(path.join(out, 'results.json'), `${JSON.stringify(results, null, 1)}\n`);
  process.stdout.write(`${text}\n`);
  process.stderr.write(`bench: written to ${path.relative(process.cwd(), out) || '.'}/RESULTS.md and results.json\n`);
}

main().catch((error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
