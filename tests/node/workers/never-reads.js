// Blocks its only thread, so nothing is read from the channel meanwhile:
//   BLOCK_AT_START_MS    before it listens
//   BLOCK_ON_LISTEN_MS   as soon as it has said that it listens
//   GET /block?ms=N      after answering
'use strict';

const http = require('node:http');
const app = require('./app');

const block = (ms) => ms > 0 && Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(ms));

block(process.env.BLOCK_AT_START_MS);
const server = http.createServer(app.routes({
  '/block': (req, res, url) => {
    res.end(JSON.stringify({ pid: process.pid }), () => setImmediate(block, url.searchParams.get('ms')));
  },
}));
server.listen(Number(process.env.PORT ?? 3000), () => setImmediate(block, process.env.BLOCK_ON_LISTEN_MS));
