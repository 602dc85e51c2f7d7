// @socket.io/sticky 2.x and @socket.io/cluster-adapter together, as their documentation shows.
'use strict';

const http = require('node:http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/cluster-adapter');
const { setupWorker } = require('sticky2');
const app = require('./app');

const server = http.createServer(app.routes());
const io = new Server(server, { ...app.ioOptions, adapter: createAdapter() });
setupWorker(io);
app.events(io);
app.broadcastEvents(io);
