// A single-process Socket.IO server as in any tutorial.
'use strict';

const http = require('node:http');
const { Server } = require('../packages')('socket.io');
const app = require('./app');

const server = http.createServer(app.routes);
const io = new Server(server, app.ioOptions);
app.events(io);
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => console.log(server.address().port));
