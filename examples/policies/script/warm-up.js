// New workers warm up: caches are cold and code is not compiled yet, so a worker takes its full share only
// after a minute. Until then its load counts as if it were higher. When each worker was first seen goes over
// to the next version of this file.
//
//   sidetrack run --policy ./warm-up.js -- node server.js

const WARM_UP = 60_000;

/** When a worker was first seen, by its id. */
let seen = {};

export function balance(workers) {
  const time = now();
  let best, least = Infinity;
  for (const worker of workers) {
    if (worker.draining) continue;
    const age = time - (seen[worker.id] ??= time);
    const cost = (worker.load + 1) / Math.max(0.1, Math.min(1, age / WARM_UP));
    if (cost < least) [best, least] = [worker, cost];
  }
  return best;
}

export function workerFailed(worker) {
  delete seen[worker.id];
}

export const schema = 'first-seen/1';
export const save = () => seen;
export const restore = state => { seen = state; };
