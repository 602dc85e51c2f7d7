// Shared by the clients: arguments, the one line of JSON, and HTTP over a bare socket.
'use strict';

const net = require('node:net');

/**
 * `node client.js http://127.0.0.1:3000 --n 100 --big`: numbers where the default is one.
 * Starts the deadline (`--deadline` seconds): no client ever hangs.
 */
exports.start = (defaults) => {
  const [base, ...rest] = process.argv.slice(2);
  const options = { deadline: 120, ...defaults };
  for (let i = 0; i < rest.length; i++) {
    const key = rest[i].replace(/^--/, '');
    if (!(key in options)) throw new Error(`unknown option ${rest[i]}; there are: ${Object.keys(options)}`);
    const kind = typeof options[key];
    options[key] = kind === 'boolean' ? true : kind === 'number' ? Number(rest[++i]) : rest[++i];
  }
  if (!base) throw new Error('usage: client.js BASE_URL [--option value]');
  const result = { ok: false, deadlineHit: false };
  setTimeout(() => finish(result, false, { deadlineHit: true }), options.deadline * 1000).unref();
  process.on('unhandledRejection', (error) => finish(result, false, { crashed: String(error?.stack ?? error) }));
  process.on('uncaughtException', (error) => finish(result, false, { crashed: String(error?.stack ?? error) }));
  return { url: new URL(base), options, result, finish: (ok) => finish(result, ok) };
};

function finish(result, ok, more) {
  Object.assign(result, { ok }, more);
  // Written synchronously: process.exit() would cut an asynchronous pipe.
  require('node:fs').writeSync(1, JSON.stringify(result) + '\n');
  process.exit(ok ? 0 : 1);
}

exports.count = (histogram, key, by = 1) => {
  histogram[key] = (histogram[key] ?? 0) + by;
};

exports.sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs `work(i)` for i below `n`, `parallel` at a time. */
exports.pool = async (n, parallel, work) => {
  let next = 0;
  const lane = async () => {
    while (next < n) await work(next++);
  };
  await Promise.all(Array.from({ length: Math.min(n, parallel) }, lane));
};

const headText = (url, { method = 'GET', path = '/', headers = {} }) =>
  `${method} ${path} HTTP/1.1\r\nHost: ${url.host}\r\n` +
  Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('') + '\r\n';
exports.headText = headText;

/** A chunked body from `at` on: `{ body, used }`, or nothing while it is incomplete. */
function dechunk(buffer, at) {
  const pieces = [];
  for (;;) {
    const end = buffer.indexOf('\r\n', at);
    if (end < 0) return {};
    const size = parseInt(buffer.toString('latin1', at, end), 16);
    const next = end + 2 + size + 2;
    if (buffer.length < next) return {};
    if (size === 0) return { body: Buffer.concat(pieces), used: next };
    pieces.push(buffer.subarray(end + 2, end + 2 + size));
    at = next;
  }
}

/** Takes one response off the front of `buffer`: null while it is incomplete. */
const parseResponse = (buffer, ended) => {
  let start = 0;
  for (;;) {
    const end = buffer.indexOf('\r\n\r\n', start);
    if (end < 0) return null;
    const [statusLine, ...lines] = buffer.toString('latin1', start, end).split('\r\n');
    const status = Number(statusLine.split(' ')[1]);
    start = end + 4;
    if (status === 100) continue;
    const headers = {};
    for (const line of lines) {
      const colon = line.indexOf(':');
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const bodyless = status === 101 || status === 204 || status === 304;
    let body;
    let used;
    if (headers['transfer-encoding'] === 'chunked') {
      ({ body, used } = dechunk(buffer, start));
    } else if (bodyless || headers['content-length'] !== undefined) {
      used = start + Number(bodyless ? 0 : headers['content-length']);
      if (buffer.length >= used) body = buffer.subarray(start, used);
    } else if (ended) {
      used = buffer.length;
      body = buffer.subarray(start);
    }
    return body ? { status, headers, body: body.toString(), used } : null;
  }
};
exports.parseResponse = parseResponse;

/**
 * One request on one fresh connection. Resolves always, to
 * `{ status, headers, body, received }` or `{ error: CODE, received }`;
 * `received` tells whether any byte came. `send(socket)` may write the request itself.
 */
exports.exchange = (url, request) => new Promise((resolve) => {
  const { timeout = 30000, body, send } = request;
  let buffer = Buffer.alloc(0);
  let done = false;
  const socket = net.connect({ host: url.hostname, port: Number(url.port), noDelay: true });
  const settle = (answer) => {
    if (done) return;
    done = true;
    clearTimeout(timer);
    socket.destroy();
    resolve({ received: buffer.length > 0, ...answer });
  };
  const timer = setTimeout(settle, timeout, { error: 'TIMEOUT' });
  const look = (ended) => {
    const response = parseResponse(buffer, ended);
    if (response) settle(response);
    else if (ended) settle({ error: buffer.length ? 'CUT' : 'CLOSED' });
  };
  socket.on('error', (error) => settle({ error: error.code ?? error.message }));
  socket.on('data', (chunk) => {
    buffer = buffer.length ? Buffer.concat([buffer, chunk]) : chunk;
    request.onData?.(chunk);
    look(false);
  });
  socket.on('end', () => look(true));
  socket.on('close', () => look(true));
  socket.on('connect', () => {
    if (send) return send(socket);
    const headers = { Connection: 'close', ...request.headers };
    if (body !== undefined) headers['Content-Length'] = Buffer.byteLength(body);
    socket.write(headText(url, { ...request, headers }));
    if (body !== undefined) socket.write(body);
  });
});

/** A raw Engine.IO handshake on a fresh connection: `{ sid, pid }` or `{ error }`. */
exports.handshake = async (url, { path = '/socket.io/', headers } = {}) => {
  const answer = await exports.exchange(url, { path: `${path}?EIO=4&transport=polling&t=${Math.random()}`, headers });
  if (answer.status !== 200) return { error: answer.error ?? `HTTP ${answer.status}` };
  return { sid: JSON.parse(answer.body.slice(1)).sid, pid: answer.headers['x-worker-pid'] };
};
