// GET /crash kills the process as kill -9 would, without an answer.
// POST /crash-reading does so at the first piece of the body.
'use strict';

const http = require('node:http');
const { Server } = require('socket.io');
const app = require('./app');

const crash = () => process.kill(process.pid, 'SIGKILL');
const server = http.createServer(app.routes({
  '/crash': crash,
  '/crash-reading': (req) => req.once('data', crash),
}));
app.events(new Server(server, app.ioOptions));
server.listen(Number(process.env.PORT ?? 3000));
