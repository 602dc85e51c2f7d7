// A primary that plays sidetrack for a few workers: it sends them connections unread, remembers the
// sessions they announce, and routes what they hand back.
'use strict';

const assert = require('node:assert');
const cluster = require('node:cluster');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { once } = require('node:events');
const { parseResponse, sleep } = require('./clients/lib');

const SHIM = path.resolve(__dirname, '../../sdk/node/lib/preload.js');

/** Waits until `check` returns something, and returns it. */
async function eventually(what, check, ms = 10000) {
  const until = Date.now() + ms;
  for (;;) {
    const value = check();
    if (value) return value;
    if (Date.now() > until) assert.fail(`not within ${ms} ms: ${typeof what === 'function' ? what() : what}`);
    await sleep(5);
  }
}

/** Where a head carries its session id, read without the shim's own code. */
const readers = {
  query: (name) => new RegExp(`^\\S+ [^ ?]*\\?(?:[^ ]*&)?${name}=([^& ]+)`),
  cookie: (name) => new RegExp(`\\r\\ncookie:(?:[^\\r]*;)? *${name}=([^;\\r]+)`, 'i'),
  header: (name) => new RegExp(`\\r\\n${name}: *([^\\r]+)`, 'i'),
  path: (number) => new RegExp(`^\\S+ (?:/[^/ ?]*){${number - 1}}/([^/ ?]+)`),
};

exports.sidetrack = function (t, { key = 'query:sid', keepAlive, hold = 300, shim = true } = {}) {
  const [kind, name] = key.split(/:(.*)/s);
  const reader = readers[kind](name);
  const owners = new Map(); // session → worker
  const workers = [];
  const handBacks = [];
  const fronts = [];
  let seq = 1e6;

  t.after(async () => {
    for (const front of fronts) front.close();
    for (const { process: child } of workers) child.kill('SIGKILL');
    await Promise.all(workers.map(({ exited }) => exited));
  });

  async function start(file, { env = {}, execArgv = [] } = {}) {
    cluster.setupPrimary({ exec: path.resolve(__dirname, 'workers', file), execArgv, silent: true });
    const slot = `w${workers.length}`;
    const forked = cluster.fork({
      PORT: 0, SIDETRACK_SLOT: slot, SIDETRACK_SESSION_KEY: key, ...(keepAlive && { SIDETRACK_KEEPALIVE: keepAlive }),
      ...(shim && { NODE_OPTIONS: `--require "${SHIM}"` }), ...env,
    });
    const child = forked.process;
    const acks = new Map();
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
    const worker = {
      slot, process: child, messages: [], keys: [], output: () => output,
      exited: once(child, 'exit').then(([code, signal]) => signal ?? code),
      of: (type) => worker.messages.filter((message) => message.type === `sidetrack:${type}`),
      sids: (type) => worker.of(type).map(({ sid }) => sid),
      handBacks: () => handBacks.filter(({ from }) => from === worker),
      closedSockets: () => worker.of('sockets-closed').reduce((sum, { count }) => sum + count, 0),
      descriptors: () => fs.readdirSync(`/proc/${child.pid}/fd`).length,
      /** Sends it a connection, of which it reads the next byte. */
      async give(handle, serverKey, sidetrack) {
        if (serverKey === undefined) {
          const socket = new net.Socket({ handle, readable: false, pauseOnCreate: true });
          child.send({ type: 'sticky:connection', data: '', sidetrack }, socket, () => {});
          return;
        }
        const id = seq++;
        acks.set(id, handle);
        child.send({ cmd: 'NODE_CLUSTER', act: 'newconn', key: serverKey, seq: id, sidetrack }, handle, () => {});
      },
      /** A URL whose connections all begin at this worker. */
      async url() {
        const front = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
          worker.give(taken(socket), worker.keys[0], worker.sidetrack?.());
        });
        fronts.push(front);
        await once(front.listen(0), 'listening');
        return new URL(`http://127.0.0.1:${front.address().port}`);
      },
    };
    workers.push(worker);
    forked.on('error', () => {}); // a write to a worker that has just ended
    child.on('internalMessage', (message) => {
      if (message.act === 'queryServer') {
        worker.keys.push(`${message.address}:${message.port}:${message.addressType}:${message.fd}:${message.index}`);
      } else if (message.act === 'listening') {
        worker.listening = true;
      } else if (acks.has(message.ack)) {
        acks.get(message.ack).close();
        acks.delete(message.ack);
      }
    });
    forked.on('message', (message, socket) => {
      worker.messages.push(message);
      if (message.type === 'sidetrack:opened' && !owners.has(message.sid)) owners.set(message.sid, worker);
      if (message.type === 'sidetrack:closed' && owners.get(message.sid) === worker) owners.delete(message.sid);
      if (message.type === 'sidetrack:hand-back') {
        if (socket) route(worker, message, taken(socket));
        else handBacks.push({ from: worker, lost: true });
      }
    });
    await eventually(() => `${file} is ready; it said: ${output}`, () => worker.listening || worker.of('listens').length);
    return worker;
  }

  /** A connection's handle, no longer read by us. */
  function taken(socket) {
    const handle = socket._handle;
    handle.readStop();
    handle.reading = false;
    socket._handle = null;
    if (socket._server) socket._server._connections--;
    return handle;
  }

  async function route(from, { data, key: serverKey }, handle) {
    const bytes = Buffer.from(data, 'base64');
    const [, sid] = reader.exec(bytes.toString('latin1')) ?? [];
    const known = () => sid !== undefined && owners.get(decodeURIComponent(sid));
    const record = { from, sid, bytes, key: serverKey };
    handBacks.push(record);
    const until = Date.now() + hold;
    while (!known() && Date.now() < until) await sleep(5);
    const others = workers.filter((worker) => worker !== from && worker.process.connected);
    record.to = known() || others[0] || from;
    record.final = !known();
    // Each worker has its own key for what is one address to the client.
    const to = serverKey === undefined ? undefined : record.to.keys[Math.max(0, from.keys.indexOf(serverKey))];
    record.to.give(handle, to, { data, ...(record.final && { final: true }) });
  }

  return { start, owners, handBacks, workers };
};

/** One keep-alive connection, whose responses come in order. */
exports.connect = async function (url) {
  const socket = net.connect({ host: url.hostname, port: Number(url.port), noDelay: true });
  await once(socket, 'connect');
  let buffer = Buffer.alloc(0);
  let ended = false;
  const waiting = [];
  const look = () => {
    while (waiting.length) {
      const response = parseResponse(buffer, ended);
      if (!response && !ended) return;
      if (response) buffer = buffer.subarray(response.used);
      waiting.shift()(response ?? { error: buffer.length ? 'CUT' : 'CLOSED' });
    }
  };
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    look();
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    ended = true;
    look();
  });
  const connection = {
    socket,
    received: () => buffer,
    ended: () => ended,
    response: () => new Promise((resolve) => {
      waiting.push(resolve);
      look();
    }),
    send: (method, target, { headers = {}, body } = {}) => {
      const length = body === undefined ? '' : `Content-Length: ${Buffer.byteLength(body)}\r\n`;
      const lines = Object.entries(headers).map(([header, value]) => `${header}: ${value}\r\n`).join('');
      socket.write(`${method} ${target} HTTP/1.1\r\nHost: ${url.host}\r\n${lines}${length}\r\n`);
      if (body !== undefined) socket.write(body);
    },
    exchange: (...request) => {
      connection.send(...request);
      return connection.response();
    },
    close: () => socket.destroy(),
  };
  return connection;
};

exports.eventually = eventually;
exports.SHIM = SHIM;
