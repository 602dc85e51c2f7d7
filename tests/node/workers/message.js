// A worker that takes its sockets from the parent's messages, the way Node's own documentation shows.
'use strict';

const http = require('node:http');
const { Server } = require('socket.io');
const app = require('./app');

const server = http.createServer(app.routes());
const io = new Server(server, app.ioOptions);
app.events(io);
process.on('message', (message, socket) => socket && server.emit('connection', socket));
