// An ordinary Socket.IO chat. Run it alone, or as many times as there are cores: the one line that
// is for several processes is the adapter, which carries what one says to the clients of all.
'use strict';

const cluster = require('node:cluster');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/cluster-adapter');

const page = fs.readFileSync(path.join(__dirname, 'index.html'));

const server = http.createServer((req, res) => {
  if (req.url.split('?')[0] !== '/') {
    res.writeHead(404).end();
    return;
  }
  res.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Content-Length': page.length });
  res.end(req.method === 'HEAD' ? undefined : page);
});

const io = new Server(server);
if (cluster.isWorker) io.adapter(createAdapter());

const clean = (text, length) => (typeof text === 'string' ? text : '').trim().slice(0, length);

io.on('connection', (socket) => {
  socket.data = { name: clean(socket.handshake.auth.name, 24) || 'somebody', pid: process.pid };
  socket.emit('welcome', socket.data);
  socket.broadcast.emit('note', { text: `${socket.data.name} is here`, pid: process.pid });
  tellWhoIsHere();

  socket.on('say', (text) => {
    text = clean(text, 1000);
    if (text) io.emit('said', { ...socket.data, id: socket.id, text, at: Date.now() });
  });
  socket.on('disconnect', () => {
    io.emit('note', { text: `${socket.data.name} has left`, pid: process.pid });
    tellWhoIsHere();
  });
});

// Asks all processes, at most a few times a second.
let pending;
function tellWhoIsHere() {
  pending ??= setTimeout(async () => {
    pending = undefined;
    try {
      const sockets = await io.fetchSockets();
      io.emit('people', sockets.map(({ id, data }) => ({ id, ...data })));
    } catch {
      tellWhoIsHere(); // a process ended before it could answer
    }
  }, 200);
}

server.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`process ${process.pid} serves the chat on port ${server.address().port}`);
});
