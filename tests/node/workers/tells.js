// Tells of every request which worker has got it.
'use strict';

const http = require('node:http');

const { PORT = 3000, SIDETRACK_SLOT: slot, TELLS: extra } = process.env;
http.createServer((req, res) => {
  req.resume().on('end', () => {
    const cwd = process.cwd();
    const body = JSON.stringify({ pid: process.pid, slot, url: req.url, user: process.getuid(), groups: process.getgroups(), cwd, extra });
    res.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
    res.end(body);
  });
}).listen(Number(PORT));
