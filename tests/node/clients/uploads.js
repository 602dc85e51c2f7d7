// Bodies of every kind: with a length, chunked, in slow pieces, after 100-continue; and CORS preflights
// that carry a session id. The worker's byte count and SHA-1 must match.
//   uploads.js URL [--n 20] [--parallel 4] [--size 1000000] [--kinds length,chunked,slow,slow-chunked,expect,preflight]
'use strict';

const crypto = require('node:crypto');
const { start, count, pool, sleep, exchange, handshake, headText } = require('./lib');

const { url, options, result, finish } = start({
  n: 20, parallel: 4, size: 1_000_000, kinds: 'length,chunked,slow,slow-chunked,expect,preflight', path: '/socket.io/',
});
Object.assign(result, { n: options.n, kinds: {}, failures: 0, errors: {}, pids: {} });

const body = crypto.randomBytes(options.size);
const sha1 = crypto.createHash('sha1').update(body).digest('hex');
const upload = (headers) => headText(url, { method: 'POST', path: '/upload', headers: { Connection: 'close', ...headers } });
const length = { 'Content-Length': body.length };
const chunked = { 'Transfer-Encoding': 'chunked' };
const asChunk = (piece) => Buffer.concat([Buffer.from(piece.length.toString(16) + '\r\n'), piece, Buffer.from('\r\n')]);
const pieces = (n) => Array.from({ length: n }, (_, i) =>
  body.subarray(Math.floor((i * body.length) / n), Math.floor(((i + 1) * body.length) / n)));

const SENDERS = {
  length: (socket) => socket.write(upload(length)) && socket.write(body),
  chunked(socket) {
    socket.write(upload(chunked));
    for (const piece of pieces(50)) socket.write(asChunk(piece));
    socket.write('0\r\n\r\n');
  },
  // The head arrives in pieces too.
  async slow(socket) {
    const head = upload(length);
    for (const part of [head.slice(0, 7), head.slice(7, 40), head.slice(40, -2), head.slice(-2), ...pieces(8)]) {
      socket.write(part);
      await sleep(25);
    }
  },
  async 'slow-chunked'(socket) {
    socket.write(upload(chunked));
    for (const piece of pieces(8)) {
      const chunk = asChunk(piece);
      socket.write(chunk.subarray(0, 3));
      await sleep(15);
      socket.write(chunk.subarray(3));
      await sleep(15);
    }
    socket.write('0\r\n\r\n');
  },
};

async function expectContinue() {
  let socket;
  let asked = false;
  return exchange(url, {
    send(opened) {
      socket = opened;
      socket.write(upload({ ...length, Expect: '100-continue' }));
    },
    onData(chunk) {
      if (asked || !chunk.toString('latin1').startsWith('HTTP/1.1 100')) return;
      asked = true;
      socket.write(body);
    },
  });
}

async function preflight() {
  const { sid, error } = await handshake(url, options);
  if (error) return { error: `handshake: ${error}` };
  const answer = await exchange(url, {
    method: 'OPTIONS',
    path: `${options.path}?EIO=4&transport=polling&sid=${sid}`,
    headers: { Origin: 'http://elsewhere.example', 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'x-any' },
  });
  return { ...answer, allowed: answer.headers?.['access-control-allow-origin'] };
}

async function one(kind) {
  const answer = await (kind === 'preflight' ? preflight() : kind === 'expect' ? expectContinue() : exchange(url, { send: SENDERS[kind] }));
  let failure = answer.error;
  if (!failure && kind === 'preflight') {
    if (answer.status !== 204 || answer.allowed !== '*') failure = `HTTP ${answer.status}, origin ${answer.allowed}`;
  } else if (!failure) {
    const got = answer.status === 200 ? JSON.parse(answer.body) : {};
    if (answer.status !== 200) failure = `HTTP ${answer.status}`;
    else if (got.bytes !== body.length || got.sha1 !== sha1) failure = `got ${got.bytes} bytes, sha1 differs: ${got.sha1 !== sha1}`;
    else count(result.pids, got.pid);
  }
  const tally = (result.kinds[kind] ??= { ok: 0, failed: 0 });
  if (!failure) return tally.ok++;
  tally.failed++;
  result.failures++;
  count(result.errors, `${kind}: ${failure}`);
}

const jobs = options.kinds.split(',').flatMap((kind) => Array(options.n).fill(kind));
pool(jobs.length, options.parallel, (i) => one(jobs[i])).then(() => finish(result.failures === 0));
