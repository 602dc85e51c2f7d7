// Short requests, a fresh connection each, for N requests or a number of seconds; made to run while
// workers are killed. An error after bytes were received is told apart from one before.
//   load.js URL [--c 16] [--n 1000 | --seconds 5] [--request /pid] [--timeout 15000] [--allow 0]
// Fails when more than --allow requests were not answered with 200.
'use strict';

const { start, count, pool, exchange } = require('./lib');

const { url, options, result, finish } = start({ c: 16, n: 0, seconds: 0, request: '/pid', timeout: 15000, allow: 0 });
Object.assign(result, { requests: 0, ok200: 0, statuses: {}, errors: {}, errorsAfterBytes: {}, pids: {}, seconds: 0, perSecond: 0, slowestMs: 0 });

const began = Date.now();
const until = options.seconds ? began + options.seconds * 1000 : Infinity;
const n = options.n || (options.seconds ? Infinity : 1000);

async function one() {
  if (Date.now() >= until) return;
  const at = Date.now();
  const { status, body, error, received } = await exchange(url, { path: options.request, timeout: options.timeout });
  result.requests++;
  result.slowestMs = Math.max(result.slowestMs, Date.now() - at);
  if (error) {
    count(received ? result.errorsAfterBytes : result.errors, error);
    if (error === 'ECONNREFUSED') await new Promise((resolve) => setTimeout(resolve, 20));
    return;
  }
  count(result.statuses, status);
  if (status !== 200) return;
  result.ok200++;
  const pid = /"pid":(\d+)/.exec(body)?.[1];
  if (pid) count(result.pids, pid);
}

const lane = async () => {
  while (Date.now() < until) await one();
};
(n === Infinity ? Promise.all(Array.from({ length: options.c }, lane)) : pool(n, options.c, one)).then(() => {
  result.seconds = (Date.now() - began) / 1000;
  result.perSecond = Math.round(result.requests / result.seconds);
  finish(result.requests > 0 && result.requests - result.ok200 <= options.allow);
});
