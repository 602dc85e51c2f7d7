// The primary of @socket.io/sticky 2.x as its README shows it, with as many workers as asked for.
//   sticky2-primary.js WORKERS WORKER_FILE
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const { createRequire } = require('node:module');
const path = require('node:path');

const { setupPrimary } = createRequire(path.join(__dirname, '../../tests/node/package.json'))('sticky2');

const [workers, exec] = process.argv.slice(2);
const server = http.createServer();
setupPrimary(server, { loadBalancingMethod: 'least-connection' });
cluster.setupPrimary({ exec, serialization: 'advanced' });
server.listen(0, '127.0.0.1');
let online = 0;
cluster.on('online', () => {
  if (++online === Number(workers)) setTimeout(() => console.log(server.address().port), 500);
});
for (let i = 0; i < Number(workers); i++) cluster.fork();
process.on('SIGTERM', () => process.exit());
