// The primary of @socket.io/sticky as its README shows it, with as many workers as asked for.
//   sticky-primary.js sticky1|sticky2 WORKERS WORKER_FILE
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const packages = require('../packages');

const [version, workers, exec] = process.argv.slice(2);
const sticky = packages(version);
const server = http.createServer();
(sticky.setupPrimary ?? sticky.setupMaster)(server, { loadBalancingMethod: 'least-connection' });
// 2.x hangs without it.
cluster.setupPrimary(version === 'sticky2' ? { exec, serialization: 'advanced' } : { exec });
server.listen(0, '127.0.0.1');
let online = 0;
cluster.on('online', () => {
  if (++online === Number(workers)) setTimeout(() => console.log(server.address().port), 500);
});
for (let i = 0; i < Number(workers); i++) cluster.fork();
process.on('SIGTERM', () => process.exit());
