// Thousands of clients in the same moment, each one GET on its own connection.
//   mass.js URL [--n 3000] [--request /pid] [--timeout 60000]
'use strict';

const { start, count, exchange } = require('./lib');

const { url, options, result, finish } = start({ n: 3000, request: '/pid', timeout: 60000 });
Object.assign(result, { n: options.n, ok200: 0, failures: 0, errors: {}, pids: {}, seconds: 0 });

const began = Date.now();
const one = async () => {
  const { status, body, error } = await exchange(url, { path: options.request, timeout: options.timeout });
  if (status === 200) {
    result.ok200++;
    const pid = /"pid":(\d+)/.exec(body)?.[1];
    if (pid) count(result.pids, pid);
  } else {
    result.failures++;
    count(result.errors, error ?? `HTTP ${status}`);
  }
};
Promise.all(Array.from({ length: options.n }, one)).then(() => {
  result.seconds = (Date.now() - began) / 1000;
  finish(result.ok200 === options.n);
});
