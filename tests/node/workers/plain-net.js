// A server of a protocol of its own, on plain sockets: it says who the client is, as soon as it connects.
'use strict';

const net = require('node:net');

const server = net.createServer((socket) => {
  const { remoteAddress, remotePort, remoteFamily } = socket;
  const body = JSON.stringify({ pid: process.pid, address: remoteAddress, port: remotePort, family: remoteFamily });
  socket.on('error', () => {}).resume();
  socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`);
});
server.listen(Number(process.env.PORT ?? 3000));
