// Two servers on two ports in one process: PORT with /socket.io/, PORT2 with /other/.
'use strict';

const http = require('node:http');
const { Server } = require('socket.io');
const app = require('./app');

for (const [name, port, path] of [
  ['first', process.env.PORT ?? 3000, '/socket.io/'],
  ['second', process.env.PORT2 ?? 3001, '/other/'],
]) {
  const server = http.createServer(app.routes({
    '/name': (req, res) => res.end(JSON.stringify({ name, pid: process.pid })),
  }));
  app.events(new Server(server, { ...app.ioOptions, path }));
  server.listen(Number(port), () => console.log(name, 'listening on', server.address().port));
}
