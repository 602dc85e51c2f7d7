// The same server, written for @socket.io/sticky 1.x: it never listens.
'use strict';

const http = require('node:http');
const packages = require('../packages');
const { Server } = packages('socket.io');
const { setupWorker } = packages('sticky1');
const app = require('./app');

const server = http.createServer(app.routes);
const io = new Server(server, app.ioOptions);
setupWorker(io);
app.events(io);
