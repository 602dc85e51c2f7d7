// my-policy: who gets a connection whose session is new. sidetrack runs this file as it is; save it, and
// the next connection is decided by the new text.

// The options, an object, {} without any. What it throws keeps the script from being loaded.
export function configure(options) {
  for (const name of Object.keys(options)) throw new Error(`unknown option "${name}"`);
}

// Edit here. Each worker has id, name, load (its open sessions and connections), weight, draining, labels.
export function balance(workers, request) {
  let best;
  for (const worker of workers) {
    if (worker.draining) continue; // it is being emptied: nothing new for it
    if (!best || worker.load < best.load) best = worker;
  }
  if (!best) return; // no opinion: the next policy of the chain is asked
  explain(`${best.name} has the lowest load, ${best.load}`);
  return best;
  // To turn a client away: return refuse(503, { retryAfter: 5, text: 'try later' });
}
