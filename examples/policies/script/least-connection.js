// The worker with the lowest load, of equals the first. `leastLoaded(workers)` does the same and is quicker;
// this is how to write what it does not do.
//
//   sidetrack run --policy ./least-connection.js -- node server.js

export function balance(workers) {
  let best;
  for (const worker of workers) {
    if (!worker.draining && (!best || worker.load < best.load)) best = worker;
  }
  return best;
}
