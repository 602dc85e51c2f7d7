// What every test worker serves: a few plain HTTP routes and a few Socket.IO events.
// Nothing here knows sidetrack.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const CORS = { 'Access-Control-Allow-Origin': '*', 'Access-Control-Allow-Headers': '*' };

exports.ioOptions = { cors: { origin: '*' }, maxHttpBufferSize: 4e6 };

function json(res, value, status = 200) {
  const body = JSON.stringify(value);
  res.writeHead(status, { ...CORS, 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  res.end(body);
}

/** A request listener; `extra` maps more paths to `(req, res, url)`. */
exports.routes = (extra = {}) => (req, res) => {
  const url = new URL(req.url, 'http://worker');
  const port = req.socket.localPort;
  if (req.method === 'OPTIONS') {
    res.writeHead(204, CORS);
    res.end();
  } else if (extra[url.pathname]) {
    extra[url.pathname](req, res, url);
  } else if (url.pathname === '/pid') {
    json(res, { pid: process.pid, port });
  } else if (url.pathname === '/peer') {
    const { remoteAddress: address, remotePort, remoteFamily: family } = req.socket;
    json(res, { pid: process.pid, address, port: remotePort, family });
  } else if (url.pathname === '/slow') {
    setTimeout(json, Number(url.searchParams.get('ms')), res, { pid: process.pid, port });
  } else if (url.pathname === '/tab' || url.pathname === '/tab/client.js') {
    // On connections of their own, so that the session of each tab begins on a new one.
    const [file, type] = url.pathname === '/tab'
      ? [path.join(__dirname, 'tab.html'), 'text/html']
      : [path.join(require.resolve('socket.io'), '../../client-dist/socket.io.min.js'), 'text/javascript'];
    res.writeHead(200, { 'Content-Type': type, Connection: 'close' });
    res.end(fs.readFileSync(file));
  } else if (url.pathname === '/large') {
    res.writeHead(200, CORS);
    res.end(Buffer.alloc(Number(url.searchParams.get('bytes')), 'x'));
  } else if (url.pathname === '/upload' && req.method === 'POST') {
    const sha1 = crypto.createHash('sha1');
    let bytes = 0;
    req.on('data', (chunk) => {
      bytes += chunk.length;
      sha1.update(chunk);
    });
    req.on('end', () => json(res, { pid: process.pid, bytes, sha1: sha1.digest('hex') }));
  } else {
    json(res, { error: 'not found', pid: process.pid }, 404);
  }
};

/** Socket.IO events, and the pid in a header of every polling and upgrade response. */
exports.events = (io) => {
  io.engine.on('headers', (headers, req) => {
    headers['X-Worker-Pid'] = String(process.pid);
    // A browser begins sessions on any connection it has, and so all of them with one worker. For a
    // moment a tab leaves none behind.
    if (Date.now() - Number(req._query.opened) < 3000) headers.Connection = 'close';
  });
  io.on('connection', (socket) => {
    socket.data.pid = process.pid;
    socket.on('echo', (payload, ack) => ack(payload));
    socket.on('whoami', (ack) => ack(process.pid));
    socket.on('address', (_, ack) => ack(socket.handshake.address));
    // A browser has fewer connections than tabs: something has to end their polls.
    const { ticks } = socket.handshake.auth;
    if (ticks) {
      const timer = setInterval(() => socket.emit('tick'), ticks);
      socket.on('disconnect', () => clearInterval(timer));
    }
  });
};

/** Events that reach over to the other workers through the adapter. */
exports.broadcastEvents = (io) => {
  io.on('ask', (question, answer) => answer({ pid: process.pid, question }));
  io.on('connection', (socket) => {
    socket.on('broadcast', (payload, ack) => {
      io.emit('news', payload);
      ack(process.pid);
    });
    socket.on('fetchSockets', async (ack) => {
      const sockets = await io.fetchSockets().catch((error) => ack({ error: error.message }));
      if (sockets) ack({ sockets: sockets.map((one) => ({ id: one.id, pid: one.data.pid })) });
    });
    socket.on('serverSideEmit', (question, ack) => {
      io.serverSideEmit('ask', question, (error, replies) => ack({ error: error?.message, replies }));
    });
  });
};
