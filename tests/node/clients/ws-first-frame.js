// Sends the first WebSocket frame at the earliest moments there are: in the same write as the
// upgrade request, or in the same turn as the 101 arrives. A frame without its answer is lost.
//   ws-first-frame.js URL [--n 1000] [--parallel 4] [--when with-request|after-101|both] [--mode fresh|probe|both]
// (The former is more than RFC 6455 allows a client, and engine.io by itself misses such a frame of a
// fresh session unless a middleware, as for CORS, comes before its handshake: the workers here have it.)
// fresh: a WebSocket-only session, first frame "40"; probe: an upgrade of a polling session, "2probe".
'use strict';

const crypto = require('node:crypto');
const net = require('node:net');
const { start, count, pool, handshake, headText } = require('./lib');

const { url, options, result, finish } = start({ n: 1000, parallel: 4, when: 'both', mode: 'both', path: '/socket.io/', wait: 10000 });
Object.assign(result, { n: options.n, answered: 0, lost: 0, failures: 0, errors: {}, lostBy: {} });

function maskedText(text) {
  const mask = crypto.randomBytes(4);
  const payload = Buffer.from(text).map((byte, i) => byte ^ mask[i % 4]);
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length]), mask, payload]);
}

const pick = (value, pair, i) => (value === 'both' ? pair[i % 2] : value);

async function one(i) {
  const when = pick(options.when, ['with-request', 'after-101'], i);
  const mode = pick(options.mode, ['fresh', 'probe'], i >> 1);
  let query = 'EIO=4&transport=websocket';
  if (mode === 'probe') {
    const { sid, error } = await handshake(url, options);
    if (error) {
      result.failures++;
      return count(result.errors, `handshake: ${error}`);
    }
    query += `&sid=${sid}`;
  }
  const [frame, wanted] = mode === 'probe' ? ['2probe', '3probe'] : ['40', '40{'];
  const head = Buffer.from(headText(url, {
    path: `${options.path}?${query}`,
    headers: {
      Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13,
      'Sec-WebSocket-Key': crypto.randomBytes(16).toString('base64'),
    },
  }));
  const outcome = await new Promise((resolve) => {
    const socket = net.connect({ host: url.hostname, port: Number(url.port), noDelay: true });
    const settle = (value) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(value);
    };
    const timer = setTimeout(settle, options.wait, 'lost');
    let text = '';
    let switched = false;
    socket.on('connect', () => socket.write(when === 'with-request' ? Buffer.concat([head, maskedText(frame)]) : head));
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (!switched && text.includes('\r\n\r\n')) {
        if (!text.startsWith('HTTP/1.1 101')) return settle(text.slice(0, text.indexOf('\r\n')));
        switched = true;
        if (when === 'after-101') socket.write(maskedText(frame));
      }
      if (text.includes(wanted)) settle('answered');
    });
    socket.on('error', (error) => settle(error.code));
    socket.on('close', () => settle('closed'));
  });
  if (outcome === 'answered') {
    result.answered++;
  } else if (outcome === 'lost') {
    result.lost++;
    count(result.lostBy, `${mode} ${when}`);
  } else {
    result.failures++;
    count(result.errors, outcome);
  }
}

pool(options.n, options.parallel, one).then(() => finish(result.lost === 0 && result.failures === 0));
