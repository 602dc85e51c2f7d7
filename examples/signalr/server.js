// A small SignalR server: negotiation, then WebSocket, server-sent events or long polling, as the
// client likes. Connections live in this process's memory.
//
// It names its sessions itself: the client learns its token from a body, which nobody reads along.
'use strict';

const http = require('node:http');
const { randomUUID } = require('node:crypto');
const { WebSocketServer } = require('ws');
const { sessions } = require('sidetrack-worker');
const { Connection } = require('./connection');
const { hub } = require('./hub');

const LONGEST_BODY = 64 * 1024;
const TRANSPORTS = ['WebSockets', 'ServerSentEvents', 'LongPolling'];

const connections = new Map(); // by token

const server = http.createServer(async (req, res) => {
  const { pathname, searchParams } = new URL(req.url, 'http://localhost');
  if (pathname === '/hub/negotiate' && req.method === 'POST') return negotiate(res, searchParams);
  const connection = pathname === '/hub' ? connections.get(searchParams.get('id')) : undefined;
  // The status that tells a client to begin anew.
  if (!connection) return res.writeHead(404).end('No Connection with that ID');
  if (req.method === 'POST') return receive(req, res, connection);
  if (req.method === 'DELETE') return void (connection.close(), res.writeHead(202).end());
  if (req.headers.accept?.includes('text/event-stream')) return streamEvents(res, connection);
  poll(res, connection);
});

async function negotiate(res, searchParams) {
  const connectionId = randomUUID();
  const negotiateVersion = Math.min(Number(searchParams.get('negotiateVersion')) || 0, 1);
  // Others may know a connection's id, but the token is its client's secret.
  const token = negotiateVersion === 1 ? randomUUID() : connectionId;
  const connection = new Connection(hub(connectionId), () => {
    connections.delete(token);
    sessions.close(token);
  });
  connections.set(token, connection);
  await sessions.open(token); // before the client knows of it
  const availableTransports = TRANSPORTS.map((transport) => ({ transport, transferFormats: ['Text'] }));
  const answer = { negotiateVersion, connectionId, ...(negotiateVersion === 1 && { connectionToken: token }), availableTransports };
  res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer));
}

async function receive(req, res, connection) {
  req.setEncoding('utf8');
  let text = '';
  try {
    for await (const chunk of req) {
      text += chunk;
      if (text.length > LONGEST_BODY) return res.writeHead(413, { Connection: 'close' }).end();
    }
  } catch {
    return; // the client has left
  }
  // Answered at once: a call may take its time, and its completion goes another way.
  connection.receive(text);
  res.writeHead(200).end();
}

function streamEvents(res, connection) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' }).flushHeaders();
  res.on('close', () => connection.close());
  connection.attach({ write: (text) => res.write(`data: ${text}\r\n\r\n`), end: () => res.end() });
}

const polled = new WeakSet();

function poll(res, connection) {
  // The first one is answered at once: it only says that the transport works.
  if (!polled.has(connection)) {
    polled.add(connection);
    return res.writeHead(200).end();
  }
  connection.attached?.end(); // a newer poll takes over
  const answer = (status, text) => {
    if (connection.attached === transport) connection.detach();
    if (!res.writableEnded) res.writeHead(status, { 'Content-Type': 'text/plain' }).end(text);
  };
  const transport = { write: (text) => answer(200, text), end: () => answer(204) };
  res.on('close', () => connection.attached === transport && connection.detach());
  connection.attach(transport);
}

const webSockets = new WebSocketServer({ noServer: true, maxPayload: LONGEST_BODY });
server.on('upgrade', (req, socket, head) => {
  const { pathname, searchParams } = new URL(req.url, 'http://localhost');
  const id = searchParams.get('id');
  // Who skips the negotiation has one WebSocket and nothing else: no session that others could need.
  const connection = pathname !== '/hub' ? undefined : id === null ? new Connection(hub(null), () => {}) : connections.get(id);
  if (!connection) return socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  webSockets.handleUpgrade(req, socket, head, (webSocket) => {
    webSocket.on('message', (data) => connection.receive(String(data)));
    webSocket.on('close', () => connection.close());
    webSocket.on('error', () => connection.close());
    connection.attach({ write: (text) => webSocket.send(text), end: () => webSocket.close() });
  });
});

server.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`process ${process.pid} serves the hub on port ${server.address().port}`);
});
