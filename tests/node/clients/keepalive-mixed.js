// Several sessions take turns on ONE keep-alive connection, as a browser's tabs and a proxy's pool do.
//   keepalive-mixed.js URL [--sessions 4] [--rounds 10]
'use strict';

const net = require('node:net');
const { start, count, handshake, headText, parseResponse } = require('./lib');

const { url, options, result, finish } = start({ sessions: 4, rounds: 10, path: '/socket.io/' });
Object.assign(result, { sessions: 0, requests: 0, ok200: 0, non200: 0, connections: 0, statuses: {}, errors: {}, pids: {} });

let socket;
function request(path, body) {
  return new Promise((resolve) => {
    if (!socket || socket.destroyed || socket.readableEnded) {
      socket = net.connect({ host: url.hostname, port: Number(url.port), noDelay: true });
      result.connections++;
    }
    let buffer = Buffer.alloc(0);
    const settle = (answer) => {
      clearTimeout(timer);
      for (const event of ['data', 'end', 'close', 'error']) socket.removeAllListeners(event);
      if (answer.error || answer.headers.connection === 'close') socket.destroy();
      socket.on('error', () => {});
      resolve(answer);
    };
    const timer = setTimeout(settle, 5000, { error: 'TIMEOUT' });
    socket.on('data', (chunk) => {
      buffer = Buffer.concat([buffer, chunk]);
      const response = parseResponse(buffer, false);
      if (response) settle(response);
    });
    socket.on('end', () => settle({ error: 'CLOSED' }));
    socket.on('close', () => settle({ error: 'CLOSED' }));
    socket.on('error', (error) => settle({ error: error.code }));
    const headers = { Connection: 'keep-alive', 'Content-Type': 'text/plain;charset=UTF-8', 'Content-Length': Buffer.byteLength(body) };
    socket.write(headText(url, { method: 'POST', path, headers }) + body);
  });
}

(async () => {
  const sessions = [];
  for (let i = 0; i < options.sessions; i++) {
    const { sid, pid, error } = await handshake(url, options);
    if (error) count(result.errors, `handshake: ${error}`);
    else sessions.push(sid) && count(result.pids, pid);
  }
  result.sessions = sessions.length;
  for (let round = 0; round < options.rounds; round++) {
    for (const sid of sessions) {
      const body = round === 0 ? '40' : `42["nothing",${round}]`;
      const answer = await request(`${options.path}?EIO=4&transport=polling&sid=${sid}`, body);
      result.requests++;
      count(result.statuses, answer.status ?? answer.error);
      if (answer.status === 200) result.ok200++;
      else result.non200++;
    }
  }
  finish(result.sessions === options.sessions && result.non200 === 0);
})();
