// A Socket.IO chat without a page of its own: everything under /socket.io is its business.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/cluster-adapter');

const server = http.createServer();
const io = new Server(server);
// Carries what one says to the clients of all workers.
if (cluster.isWorker) io.adapter(createAdapter());

io.on('connection', (socket) => {
  socket.emit('welcome', process.pid);
  socket.on('say', (text) => {
    if (typeof text === 'string' && text.trim()) io.emit('said', text.trim().slice(0, 1000));
  });
});
server.listen(3000);
