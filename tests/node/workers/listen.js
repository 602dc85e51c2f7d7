// A single-process Socket.IO server as in any tutorial.
'use strict';

const http = require('node:http');
const { Server } = require('socket.io');
const app = require('./app');

const server = http.createServer(app.routes());
const io = new Server(server, app.ioOptions);
app.events(io);
server.listen(Number(process.env.PORT ?? 3000), () => console.log('listening on', server.address().port));
