// What takes long keeps its session in use.
'use strict';

const assert = require('node:assert');
const http = require('node:http');
const { once } = require('node:events');
const { test } = require('node:test');
const { finder } = require('../lib/key');

const find = finder('header:X-Session');
const told = [];
const sessions = {
  use(sid) {
    told.push(`use ${sid}`);
    return () => told.push(`end ${sid}`);
  },
};
const terms = { find, keepAlive: 'hand-back' };
const { answering } = require('../lib/responses').learn({ terms, sessions });
require('../lib/http').watch({ terms, sessions, sockets: { arrivalOf() {} }, answering });

async function listening(t, server) {
  t.after(() => server.close());
  await once(server.listen(0), 'listening');
  return server.address();
}

test('a session is in use until its answer has ended, or its client has left', async (t) => {
  const streams = [];
  const server = http.createServer((req, res) => {
    res.flushHeaders();
    streams.push(res);
  });
  t.after(() => server.closeAllConnections());
  const { port } = await listening(t, server);
  const ask = async (headers) => {
    const [response] = await once(http.get({ port, headers }), 'response');
    return response.resume();
  };

  await ask({});
  const [answered, abandoned] = [await ask({ 'X-Session': 'a' }), await ask({ 'X-Session': 'b' })];
  assert.deepStrictEqual(told.splice(0), ['use a', 'use b']);
  streams[1].end();
  await once(answered, 'end');
  const gone = once(streams[2], 'close');
  abandoned.destroy();
  await gone;
  assert.deepStrictEqual(told.splice(0), ['end a', 'end b']);
});

test('… and until its WebSocket has closed', async (t) => {
  const server = http.createServer().on('upgrade', (req, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    server.emit('upgraded', socket);
  });
  const { port } = await listening(t, server);
  const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'X-Session': 'a' };
  const request = http.get({ port, headers });
  const [[theirs], [, ours]] = await Promise.all([once(server, 'upgraded'), once(request, 'upgrade')]);
  assert.deepStrictEqual(told.splice(0), ['use a']);
  ours.destroy();
  theirs.on('end', () => theirs.end()).resume();
  await once(theirs, 'close');
  assert.deepStrictEqual(told.splice(0), ['end a']);
});
