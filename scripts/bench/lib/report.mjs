// From single measurements to rows, ratios and bars, and those to Markdown.

/** Routes in the order of the table, with what each does. */
export const ROUTES = {
  plain: 'a constant answer, nothing checked',
  limited: 'a rate limit that is never reached, then a small cached body',
  leased: 'a rate limit that is never reached, granted ahead (`lease = "auto"`), then a small cached body',
  blocked: 'a rate limit that every client is over: 429',
  product: 'a rate limit that is never reached, then one of 1,000 cached products',
  twice: 'two rate limits of one phase, then one of 1,000 cached products',
};

export const LABELS = {
  bellwether: 'Bellwether',
  nginx: 'nginx `return 200`',
  actix: 'bare actix-web',
  fastify: 'Fastify + @fastify/rate-limit',
  express: 'Express + express-rate-limit',
};

const REFERENCE = 'bellwether';

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** One row per route and system: medians over the rounds. */
export function rowsOf(measurements) {
  const cells = new Map();
  for (const measurement of measurements) {
    const name = `${measurement.route} ${measurement.system}`;
    cells.set(name, [...(cells.get(name) ?? []), measurement]);
  }
  return [...cells.values()].map((cell) => {
    const over = (field) => median(cell.map((measurement) => measurement[field]));
    const cpu = cell.map((measurement) => measurement.cpu_us_per_request);
    return {
      route: cell[0].route,
      system: cell[0].system,
      rounds: cell.length,
      requests_per_second: over('requests_per_second'),
      p50_us: over('p50_us'),
      p99_us: over('p99_us'),
      cpu_us_per_request: median(cpu),
      cpu_us_per_request_lowest: Math.min(...cpu),
      cpu_us_per_request_highest: Math.max(...cpu),
      redis_us_per_request: over('redis_us_per_request'),
      requests: cell.reduce((sum, { requests }) => sum + requests, 0),
      unexpected_answers: cell.reduce((sum, measurement) => sum + measurement.unexpected_answers, 0),
      ratio_to_bellwether: ratio(measurements, cell[0].route, cell[0].system, REFERENCE),
    };
  });
}

/** CPU per request of `system` over that of `base`, the median of the ratios within each round; null when one is missing. */
export function ratio(measurements, route, system, base) {
  const of = (name) => measurements.filter((measurement) => measurement.route === route && measurement.system === name);
  const bases = new Map(of(base).map(({ round, cpu_us_per_request: cpu }) => [round, cpu]));
  const ratios = of(system)
    .filter(({ round }) => bases.has(round))
    .map(({ round, cpu_us_per_request: cpu }) => cpu / bases.get(round));
  return ratios.length === 0 ? null : median(ratios);
}

/** Our CPU per request on one route over that on another, the median of the ratios within each round; null when one is missing. */
function ratioOfRoutes(measurements, route, base) {
  const ours = measurements.filter(({ system }) => system === REFERENCE);
  const asBase = ours.filter((measurement) => measurement.route === base).map((measurement) => ({ ...measurement, route, system: base }));
  return ratio([...ours, ...asBase], route, REFERENCE, base);
}

function redisCalls(measurements, route) {
  const ours = measurements.filter((measurement) => measurement.system === REFERENCE && measurement.route === route);
  return ours.length === 0 ? null : median(ours.map((measurement) => measurement.redis_calls_per_request));
}

/** The bars the project sets itself on two cores. `measured` is null when what it needs did not take part. */
export function barsOf({ measurements, memory, spread }) {
  const ours = memory.find(({ system }) => system === REFERENCE);
  const bars = [
    { bar: 'product costs at most 2.2 × nginx', limit: 2.2, most: true, measured: ratio(measurements, 'product', REFERENCE, 'nginx') },
    { bar: 'limited costs at most 1.9 × nginx', limit: 1.9, most: true, measured: ratio(measurements, 'limited', REFERENCE, 'nginx') },
    { bar: 'leased costs at most 1.3 × nginx', limit: 1.3, most: true, measured: ratio(measurements, 'leased', REFERENCE, 'nginx') },
    { bar: 'leased calls Redis at most 0.05 times per request', limit: 0.05, most: true, measured: redisCalls(measurements, 'leased') },
    { bar: 'two limits cost at most 1.15 × one', limit: 1.15, most: true, measured: ratioOfRoutes(measurements, 'twice', 'product') },
    { bar: 'blocked costs at most 1.3 × nginx', limit: 1.3, most: true, measured: ratio(measurements, 'blocked', REFERENCE, 'nginx') },
    { bar: 'Express costs at least 8 × the product', limit: 8, most: false, measured: ratio(measurements, 'product', 'express', REFERENCE) },
    { bar: 'Fastify costs at least 2.2 × the product', limit: 2.2, most: false, measured: ratio(measurements, 'product', 'fastify', REFERENCE) },
    { bar: 'a worker holds at most 25 MB after the run', limit: 25, most: true, measured: ours ? ours.largest_worker_bytes / 1e6 : null },
    { bar: 'fresh connections spread over the workers within 20 %', limit: 20, most: true, measured: spread ? spread.deviation * 100 : null },
  ];
  return bars.map(({ most, ...bar }) => {
    if (bar.measured === null) return { ...bar, verdict: 'NOT MEASURED' };
    const kept = most ? bar.measured <= bar.limit : bar.measured >= bar.limit;
    return { ...bar, verdict: kept ? 'PASS' : 'MISS' };
  });
}

/** How unevenly `served` counts are spread: the largest deviation from the mean, as a share of it. */
export function deviation(served, workers) {
  const counts = Object.values(served);
  while (counts.length < workers) counts.push(0);
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  return mean === 0 ? 1 : Math.max(...counts.map((count) => Math.abs(count - mean))) / mean;
}

/** The whole report as Markdown. */
export function markdown(results) {
  return `${[
    '# What a request costs',
    introduction(results),
    machineTable(results),
    ...Object.keys(ROUTES).map((route) => routeTable(results, route)).filter(Boolean),
    memoryTable(results),
    barsTable(results),
  ].join('\n\n')}\n`;
}

function introduction({ parameters: { rounds_done: rounds, seconds, connections, identities } }) {
  return `Written by \`scripts/bench/run\`. Every figure is the median of ${rounds} interleaved rounds of ${seconds} s with ${connections} connections that
stay open; every system is sent the same requests and answers the same bytes. **CPU** is the user and system time of all
processes of a system, its Redis included and the load generator excluded, divided by the requests answered; it is the
figure to compare, because the load generator shares the cores with the servers and so bends requests/s and latency.
Limited routes see ${identities.toLocaleString('en')} client addresses at random, told by a trusted proxy.`;
}

function machineTable({ machine, versions, commit, date }) {
  const rows = [
    ['date', date], ['commit', commit], ['CPU', `${machine.cpu}, ${machine.cores} cores`], ['memory', `${(machine.memory_bytes / 2 ** 30).toFixed(1)} GiB`],
    ['system', `${machine.os}, Linux ${machine.kernel}`], ...Object.entries(versions),
  ];
  return table(['machine', ''], rows);
}

function routeTable({ rows, payload_bytes: bytes }, route) {
  const cells = rows.filter((row) => row.route === route).sort((a, b) => a.cpu_us_per_request - b.cpu_us_per_request);
  if (cells.length === 0) return null;
  const head = ['system', 'CPU µs/request', 'lowest–highest', 'of it Redis', '× Bellwether', 'requests/s', 'p50 ms', 'p99 ms', 'wrong answers'];
  const lines = cells.map((row) => [
    LABELS[row.system],
    row.cpu_us_per_request.toFixed(1),
    `${row.cpu_us_per_request_lowest.toFixed(1)}–${row.cpu_us_per_request_highest.toFixed(1)}`,
    row.redis_us_per_request.toFixed(1),
    row.ratio_to_bellwether === null ? '–' : row.ratio_to_bellwether.toFixed(2),
    Math.round(row.requests_per_second).toLocaleString('en'),
    (row.p50_us / 1000).toFixed(2),
    (row.p99_us / 1000).toFixed(2),
    `${row.unexpected_answers} of ${row.requests.toLocaleString('en')}`,
  ]);
  return `## ${route}: ${ROUTES[route]} (${bytes[route].toLocaleString('en')} bytes)\n\n${table(head, lines)}`;
}

function memoryTable({ memory, spread }) {
  const lines = memory.map(({ system, largest_worker_bytes: worker, all_bytes: all }) => [LABELS[system], (worker / 1e6).toFixed(1), (all / 1e6).toFixed(1)]);
  const text = `## Memory after the run\n\n${table(['system', 'largest worker, MB resident', 'all processes and Redis, MB'], lines)}`;
  if (!spread) return text;
  const served = Object.entries(spread.served).sort().map(([worker, count]) => `${worker} ${count.toLocaleString('en')}`).join(', ');
  return `${text}\n\n${spread.connections.toLocaleString('en')} fresh connections of one request each were served by ${served}; ${spread.errors} failed.`;
}

function barsTable({ bars }) {
  const lines = bars.map(({ bar, limit, measured, verdict }) => [bar, limit, measured === null ? '–' : measured.toFixed(2), verdict]);
  return `## Bars\n\n${table(['bar', 'limit', 'measured', ''], lines)}`;
}

// Padded, so that the same text reads well on a terminal.
function table(head, rows) {
  const lines = [head, ...rows].map((line) => line.map(String));
  const widths = head.map((_, column) => Math.max(3, ...lines.map((line) => line[column].length)));
  const text = (line) => `| ${line.map((cell, column) => cell.padEnd(widths[column])).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [text(lines[0]), rule, ...lines.slice(1).map(text)].join('\n');
}
