// Node's own cluster with its round-robin, with as many workers as asked for.
//   cluster-primary.js WORKERS WORKER_FILE
'use strict';

const cluster = require('node:cluster');

const [workers, exec] = process.argv.slice(2);
cluster.schedulingPolicy = cluster.SCHED_RR;
// What the workers print is not ours to repeat.
cluster.setupPrimary({ exec, silent: true });
let listening = 0;
cluster.on('listening', (worker, address) => {
  if (++listening === Number(workers)) console.log(address.port);
});
for (let i = 0; i < Number(workers); i++) cluster.fork();
process.on('SIGTERM', () => process.exit());
