// A listening server whose broadcasts reach all workers through @socket.io/cluster-adapter.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/cluster-adapter');
const app = require('./app');

const server = http.createServer(app.routes());
const io = new Server(server, { ...app.ioOptions, adapter: cluster.isWorker ? createAdapter() : undefined });
app.events(io);
app.broadcastEvents(io);
server.listen(Number(process.env.PORT ?? 3000), () => console.log('listening on', server.address().port));
