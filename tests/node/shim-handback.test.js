// Hand-back: one connection that carries the requests of sessions on different workers.
'use strict';

const assert = require('node:assert');
const crypto = require('node:crypto');
const { test } = require('node:test');
const { once } = require('node:events');
const { connect, eventually, sidetrack } = require('./primary');
const { handshake, exchange, sleep } = require('./clients/lib');
const { program } = require('./program');

const KINDS = ['listen.js', 'listen.mjs', 'sticky1.js', 'sticky2.js', 'message.js'];
const PLAIN = { 'Content-Type': 'text/plain;charset=UTF-8' };
const poll = (sid) => `/socket.io/?EIO=4&transport=polling&sid=${sid}`;

/** Two workers of a kind, a session on each, and a URL to each. */
async function pair(t, file, options = {}) {
  const primary = sidetrack(t, options);
  const workers = [await primary.start(file, options), await primary.start(file, options)];
  const urls = await Promise.all(workers.map((worker) => worker.url()));
  const open = async (i) => {
    const { sid, error } = await handshake(urls[i]);
    assert.strictEqual(error, undefined);
    await eventually('announced', () => primary.owners.get(sid) === workers[i]);
    return sid;
  };
  return { primary, workers, urls, open };
}

/** Completes the handshake of a Socket.IO session and reads its answer, over a connection. */
async function exchangePackets(connection, sid) {
  const sent = await connection.exchange('POST', poll(sid), { headers: PLAIN, body: '40' });
  const got = await connection.exchange('GET', poll(sid));
  return [sent.status, got.status];
}

test('a session that ends meanwhile is no longer this worker\'s, on the same connection and by the same URL', async (t) => {
  const { primary, urls, open } = await pair(t, 'listen.js');
  const [own, ends] = [await open(0), await open(0)];
  const connection = await connect(urls[0]);
  const pid = (sid) => connection.exchange('GET', `/pid?sid=${sid}`);
  for (let i = 0; i < 3; i++) for (const sid of [ends, ends, own]) assert.strictEqual((await pid(sid)).status, 200);
  assert.strictEqual((await pid(ends)).status, 200);
  assert.strictEqual(primary.handBacks.length, 0);
  // On another connection, so that this one asks for nothing else in between.
  const other = await connect(urls[0]);
  assert.strictEqual((await other.exchange('POST', poll(ends), { headers: PLAIN, body: '1' })).status, 200);
  await eventually('it has ended', () => !primary.owners.has(ends));
  assert.strictEqual((await pid(ends)).status, 200);
  assert.strictEqual(primary.handBacks.length, 1);
  assert.strictEqual((await pid(own)).status, 200);
  connection.close();
  other.close();
});

for (const kind of KINDS) {
  test(`${kind}: sessions of two workers, interleaved on one connection`, async (t) => {
    const { primary, workers, urls, open } = await pair(t, kind);
    const sessions = await Promise.all(Array.from({ length: 20 }, (_, i) => open(i % 2)));
    const connection = await connect(urls[0]);
    for (const sid of sessions) {
      assert.deepStrictEqual(await exchangePackets(connection, sid), [200, 200]);
    }
    // Each says which worker it is.
    for (const sid of sessions.slice(0, 6)) {
      connection.send('GET', poll(sid));
      await sleep(5);
      assert.strictEqual((await exchange(urls[primary.owners.get(sid) === workers[0] ? 0 : 1], { method: 'POST', path: poll(sid), headers: PLAIN, body: `420["whoami"]` })).status, 200);
      const { body } = await connection.response();
      assert.strictEqual(body, `430[${primary.owners.get(sid).process.pid}]`);
    }
    assert.strictEqual(connection.ended(), false);
    assert.ok(primary.handBacks.length >= 19, `${primary.handBacks.length} hand-backs`);
    assert.ok(primary.handBacks.every(({ final, key }) => !final && (key !== undefined) === kind.startsWith('listen')));
    connection.close();
    // Every hand-off ends in a close or a hand-back, which count alike.
    const given = 20 + 6 + 1 + primary.handBacks.length;
    await eventually('all counted', () => workers[0].closedSockets() + workers[1].closedSockets() === given);
    for (const worker of workers) assert.strictEqual(worker.output().replace(/^listening on \d+\n/, ''), '');
  });

  test(`${kind}: bodies of any size, split anywhere, arrive whole`, async (t) => {
    const { urls, open, primary } = await pair(t, kind);
    const sids = [await open(0), await open(1)];
    const connection = await connect(urls[0]);
    for (const [i, size] of [0, 1, 7, 1000, 16_384, 65_536, 65_537, 200_000, 1_000_000].entries()) {
      for (const chunked of [false, true]) {
        const body = crypto.randomBytes(size);
        // An id of the other worker than the one that has the connection.
        const sid = sids[(i * 2 + (chunked ? 1 : 0) + 1) % 2];
        const head = `POST /upload?sid=${sid} HTTP/1.1\r\nHost: x\r\nX-Twice: a\r\nx-twice: \xe9\r\n` +
          (chunked ? 'Transfer-Encoding: chunked\r\n\r\n' : `Content-Length: ${size}\r\n\r\n`);
        const wire = Buffer.concat([Buffer.from(head, 'latin1'), ...(chunked ? chunks(body) : [body])]);
        const answer = connection.response();
        await writeInPieces(connection.socket, wire);
        const { status, body: text } = await answer;
        assert.strictEqual(status, 200);
        const { bytes, sha1 } = JSON.parse(text);
        assert.deepStrictEqual([bytes, sha1], [size, crypto.createHash('sha1').update(body).digest('hex')]);
      }
    }
    assert.strictEqual(connection.ended(), false);
    assert.strictEqual(primary.handBacks.length, 18);
    for (const { bytes } of primary.handBacks) assert.match(bytes.toString('latin1'), /\r\nX-Twice: a\r\nx-twice: \xe9\r\n/);
    connection.close();
  });

  test(`${kind}: an upgrade on a used connection, first frame included`, async (t) => {
    const { urls, open, workers } = await pair(t, kind);
    const sids = [await open(0), await open(1)];
    for (const [from, sid] of [[0, sids[1]], [1, sids[0]]]) {
      const connection = await connect(urls[from]);
      assert.strictEqual((await connection.exchange('GET', '/pid')).status, 200);
      const ping = Buffer.from('2probe');
      const frame = Buffer.concat([Buffer.from([0x81, 0x80 | ping.length, 0, 0, 0, 0]), ping]);
      connection.socket.write(Buffer.concat([Buffer.from(`GET /socket.io/?EIO=4&transport=websocket&sid=${sid} HTTP/1.1\r\nHost: x\r\n` +
        'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'), frame]));
      const { status, headers } = await connection.response();
      assert.strictEqual(status, 101);
      assert.strictEqual(headers['x-worker-pid'], String(workers[1 - from].process.pid));
      await eventually('3probe', () => connection.received().includes('3probe'));
      connection.close();
    }
  });
}

const chunks = (body) => {
  const pieces = [];
  for (let at = 0; at < body.length;) {
    const size = Math.min(body.length - at, 1 + crypto.randomInt(20_000));
    pieces.push(Buffer.from(`${size.toString(16)};note=x\r\n`), body.subarray(at, at + size), Buffer.from('\r\n'));
    at += size;
  }
  return [...pieces, Buffer.from('0\r\nTrailer-Field: x\r\n\r\n')];
};

async function writeInPieces(socket, wire) {
  const cuts = Array.from({ length: 6 }, () => crypto.randomInt(wire.length + 1)).sort((a, b) => a - b);
  let at = 0;
  for (const cut of [...cuts, wire.length]) {
    socket.write(wire.subarray(at, cut));
    at = cut;
    await sleep(crypto.randomInt(3));
  }
}

// A server with nothing but routes: no 'upgrade' listener.
const ROUTES = program(`
  const server = require('http').createServer((req, res) => {
    const url = new URL(req.url, 'http://x');
    const answer = () => res.end(JSON.stringify({ slot: process.env.SIDETRACK_SLOT, url: req.url }));
    if (url.pathname === '/own') {
      require(process.env.SDK).sessions.open(url.searchParams.get('id')).then(answer);
    } else if (url.pathname === '/big') {
      res.write(Buffer.alloc(3_000_000, 'x'));
      res.once('drain', () => { res.write('drained'); setTimeout(answer, 50); });
    } else if (url.pathname === '/slow') setTimeout(answer, 300);
    else if (url.pathname === '/last') { res.setHeader('Connection', 'close'); setTimeout(answer, 100); }
    else if (url.pathname === '/close') server.close(() => process.send('server closed'));
    else if (url.pathname === '/never') req.on('close', () => process.send('client gone'));
    else answer();
  });
  server.on('clientError', (error, socket) => socket.destroy());
  server.listen(process.env.PORT);`);
const SDK = require.resolve('../../sdk/node');

async function routes(t, options = {}) {
  const made = await pair(t, ROUTES, { env: { SDK }, ...options });
  for (const [i, sid] of ['one', 'two'].entries()) {
    assert.strictEqual((await exchange(made.urls[i], { path: `/own?id=${sid}` })).status, 200);
  }
  await eventually('announced', () => made.primary.owners.size === 2);
  return made;
}
const slotOf = async (response) => JSON.parse((await response).body.replace(/^x*(drained)?/, '')).slot;

test('requests behind the misplaced one go with it, in order', async (t) => {
  const { urls, primary } = await routes(t);
  const connection = await connect(urls[0]);
  const order = ['one', 'two', 'two', 'one', 'one', 'two'];
  connection.socket.write(order.map((sid, i) => `GET /${i}?sid=${sid} HTTP/1.1\r\nHost: x\r\n\r\n`).join(''));
  for (const [i, sid] of order.entries()) {
    const { body } = await connection.response();
    assert.deepStrictEqual(JSON.parse(body), { slot: sid === 'one' ? 'w0' : 'w1', url: `/${i}?sid=${sid}` });
  }
  assert.strictEqual(primary.handBacks.length, 3);
  connection.close();
});

test('earlier responses are written whole before the connection goes', async (t) => {
  const { urls, workers, primary } = await routes(t);
  const connection = await connect(urls[0]);
  connection.socket.pause();
  connection.socket.write(['/big?sid=one', '/slow', '/fast', '/x?sid=two', '/y?sid=one'].map((path) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`).join(''));
  await sleep(200);
  assert.strictEqual(primary.handBacks.length, 0);
  connection.socket.resume();
  const big = await connection.response();
  assert.match(big.body, /^x{3000000}drained\{/);
  assert.deepStrictEqual([await slotOf(connection.response()), await slotOf(connection.response())], ['w0', 'w0']);
  assert.strictEqual(await slotOf(connection.response()), 'w1');
  assert.strictEqual(await slotOf(connection.response()), 'w0');
  assert.strictEqual(connection.ended(), false);
  connection.close();
  await eventually('counted', () => workers[0].closedSockets() === 3);
});

test('an earlier response that closes the connection closes it', async (t) => {
  const { urls, workers, primary } = await routes(t);
  const connection = await connect(urls[0]);
  connection.socket.write('GET /last HTTP/1.1\r\nHost: x\r\n\r\nGET /?sid=two HTTP/1.1\r\nHost: x\r\n\r\n');
  assert.strictEqual((await connection.response()).status, 200);
  await eventually('closed', () => connection.ended());
  await eventually('counted', () => workers[0].closedSockets() === 2);
  assert.strictEqual(primary.handBacks.length, 0);
});

test('a client that leaves in the middle leaves nothing behind', async (t) => {
  const { urls, workers, primary } = await routes(t);
  assert.strictEqual((await exchange(urls[0], { path: '/?sid=two' })).status, 200); // everything is loaded
  await eventually('settled', () => workers[0].closedSockets() === 2 && workers[1].closedSockets() === 2);
  const before = workers.map((worker) => worker.descriptors());
  const closed = workers.map((worker) => worker.closedSockets());
  for (let i = 0; i < 30; i++) {
    const connection = await connect(urls[0]);
    // Before an answer, after one, and with half a body.
    connection.socket.write([
      'GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET /?sid=two HTTP/1.1\r\nHost: x\r\n\r\n',
      'POST /?sid=two HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf',
      'GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /?sid=two HTTP/1.1\r\nHost: x\r\n\r\n',
    ][i % 3]);
    await sleep(i % 7);
    if (i % 2) connection.socket.resetAndDestroy();
    else connection.close();
  }
  await eventually('all connections have ended', () =>
    workers.reduce((sum, worker, i) => sum + worker.closedSockets() - closed[i], 0) === 30 + primary.handBacks.length - 1);
  await eventually('no descriptor is left', () => workers.every((worker, i) => worker.descriptors() <= before[i]));
  for (const worker of workers) {
    assert.strictEqual(worker.output(), '');
    assert.strictEqual(worker.process.exitCode, null);
  }
});

test('no descriptor is left after many hand-backs, and server.close() waits for none', async (t) => {
  const { urls, workers } = await routes(t);
  const connection = await connect(urls[0]);
  await slotOf(connection.exchange('GET', '/?sid=two'));
  const before = workers.map((worker) => worker.descriptors());
  for (let i = 0; i < 200; i++) assert.strictEqual(await slotOf(connection.exchange('GET', `/?sid=${i % 2 ? 'two' : 'one'}`)), i % 2 ? 'w1' : 'w0');
  await eventually('no descriptor is left', () => workers.every((worker, i) => worker.descriptors() <= before[i]));
  assert.strictEqual(await slotOf(connection.exchange('GET', '/?sid=two')), 'w1');
  // The first worker's server has handed all of its connections back.
  connection.close();
  const last = await connect(urls[0]);
  last.send('GET', '/close');
  await sleep(50);
  last.close();
  await eventually('closed', () => workers[0].messages.includes('server closed'));
});

test('an id that nobody knows is answered by a worker, once', async (t) => {
  const { primary, urls, open } = await pair(t, 'listen.js', { hold: 20 });
  const sid = await open(0);
  const connection = await connect(urls[0]);
  assert.deepStrictEqual(await exchangePackets(connection, sid), [200, 200]);
  const { status, body } = await connection.exchange('GET', poll('nobody'));
  assert.deepStrictEqual([status, JSON.parse(body).message], [400, 'Session ID unknown']);
  assert.deepStrictEqual(primary.handBacks.map(({ sid, final }) => [sid, final]), [['nobody', true]]);
  // The next one on that connection is looked at again.
  assert.strictEqual((await connection.exchange('GET', '/pid')).status, 200);
  connection.send('GET', poll(sid));
  await eventually('handed back', () => primary.handBacks.length === 2);
  connection.close();
});

test('a first request that is final stays, whatever its id', async (t) => {
  const { primary, workers, urls } = await routes(t);
  workers[0].sidetrack = () => ({ final: true });
  const connection = await connect(urls[0]);
  assert.strictEqual(await slotOf(connection.exchange('GET', '/?sid=two')), 'w0');
  assert.strictEqual(primary.handBacks.length, 0);
  assert.strictEqual(await slotOf(connection.exchange('GET', '/?sid=two')), 'w1');
  connection.close();
});

test('in doubt a request stays', async (t) => {
  const { primary, urls } = await routes(t);
  const connection = await connect(urls[0]);
  for (const query of ['sid=two&sid=one', 'sid=%ff', `sid=${'x'.repeat(257)}`, 'sid=', 'xsid=two', 'x=sid%3dtwo', 'SID=two']) {
    assert.strictEqual(await slotOf(connection.exchange('GET', `/?${query}`)), 'w0', query);
  }
  assert.strictEqual(primary.handBacks.length, 0);
  assert.strictEqual(await slotOf(connection.exchange('GET', '/?a&%73id=%74wo&sid=two#sid=three')), 'w1');
  connection.close();
});

test('Expect: 100-continue and HTTP/1.0 go to the right worker as they are', async (t) => {
  const { urls } = await routes(t);
  const connection = await connect(urls[0]);
  connection.socket.write('POST /?sid=two HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n');
  await eventually('100', () => connection.received().includes('100 Continue'));
  connection.socket.write('abc');
  assert.strictEqual(await slotOf(connection.response()), 'w1');
  connection.socket.write('GET /?sid=one HTTP/1.0\r\n\r\n');
  assert.strictEqual(await slotOf(connection.response()), 'w0');
  await eventually('closed, as HTTP/1.0 is', () => connection.ended());
});

test('a head that the server has cut is answered here', async (t) => {
  const file = program(`
    const server = require('http').createServer((req, res) => res.end(process.env.SIDETRACK_SLOT));
    server.maxHeadersCount = 5;
    server.listen(process.env.PORT);`);
  const { primary, urls } = await pair(t, file, { hold: 0 });
  const many = Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`X-${i}`, i]));
  const { status, body } = await exchange(urls[0], { path: '/?sid=x', headers: many });
  assert.ok(body === 'w0' || status === 431, `${status} ${body}`); // newer versions of Node refuse it
  assert.strictEqual(primary.handBacks.length, 0);
  assert.strictEqual((await exchange(urls[0], { path: '/?sid=x' })).body, 'w1');
});

test('several Socket.IO servers, paths and ports in one process', async (t) => {
  const primary = sidetrack(t);
  const workers = [];
  for (let i = 0; i < 2; i++) workers.push(await primary.start('two-ports.js', { env: { PORT: 0, PORT2: 0 } }));
  await eventually('both ports', () => workers.every(({ keys }) => keys.length === 2));
  const urls = await Promise.all(workers.map((worker) => worker.url()));
  const second = workers.map((worker) => ({ ...worker }));
  const sids = [];
  for (const i of [0, 1]) sids.push((await handshake(urls[i])).sid);
  await eventually('announced', () => sids.every((sid) => primary.owners.has(sid)));
  const connection = await connect(urls[0]);
  for (const i of [1, 0, 1, 0]) assert.strictEqual((await connection.exchange('POST', poll(sids[i]), { headers: PLAIN, body: i === sids.length ? '' : '3' })).status, 200);
  // The second server, by its own key.
  for (const [i, worker] of second.entries()) worker.keys = [workers[i].keys[1]];
  for (const worker of workers) worker.keys.reverse();
  const others = await Promise.all(workers.map((worker) => worker.url()));
  const otherSids = [];
  for (const i of [0, 1]) otherSids.push((await handshake(others[i], { path: '/other/' })).sid);
  await eventually('announced', () => otherSids.every((sid) => primary.owners.has(sid)));
  const other = await connect(others[0]);
  const before = primary.handBacks.length;
  for (const i of [1, 0]) {
    assert.strictEqual((await other.exchange('POST', `/other/?EIO=4&transport=polling&sid=${otherSids[i]}`, { headers: PLAIN, body: '3' })).status, 200);
  }
  assert.deepStrictEqual(primary.handBacks.slice(before).map(({ from, key }) => from.keys.indexOf(key)), [0, 0]);
  connection.close();
  other.close();
});

test('keep-alive "close": every response closes its connection', async (t) => {
  const { primary, urls } = await routes(t, { keepAlive: 'close' });
  const connection = await connect(urls[0]);
  const { headers } = await connection.exchange('GET', '/?sid=two');
  assert.strictEqual(headers.connection, 'close');
  await eventually('closed', () => connection.ended());
  assert.strictEqual(primary.handBacks.length, 0);
});

test('keep-alive "worker": connections are left alone, sticky closes its own', async (t) => {
  const { primary, urls } = await routes(t, { keepAlive: 'worker' });
  const connection = await connect(urls[0]);
  for (let i = 0; i < 3; i++) assert.strictEqual(await slotOf(connection.exchange('GET', '/?sid=two')), 'w0');
  assert.strictEqual(primary.handBacks.length, 0);
  connection.close();
  const sticky = await pair(t, 'sticky2.js', { keepAlive: 'worker' });
  assert.strictEqual((await exchange(sticky.urls[0], { path: '/pid', headers: { Connection: 'keep-alive' } })).headers.connection, 'close');
});

test('a close of the program\'s own is left as it is', async (t) => {
  const file = program(`
    const { Server } = require('socket.io');
    const server = require('http').createServer((req, res) => res.end());
    require('sticky2').setupWorker(new Server(server));
    server.prependListener('request', (req, res) => { if (req.url === '/last') res.setHeader("Connection", "close"); });`);
  const { urls } = await pair(t, file);
  const connection = await connect(urls[0]);
  assert.strictEqual((await connection.exchange('GET', '/')).headers.connection, 'keep-alive');
  assert.strictEqual((await connection.exchange('GET', '/last')).headers.connection, 'close');
  await eventually('closed', () => connection.ended());
});

test('without its channel a worker answers everything itself', async (t) => {
  const { urls, workers } = await routes(t);
  const connection = await connect(urls[0]);
  assert.strictEqual(await slotOf(connection.exchange('GET', '/?sid=one')), 'w0');
  workers[0].process.disconnect();
  await sleep(50);
  for (let i = 0; i < 2; i++) assert.strictEqual(await slotOf(connection.exchange('POST', '/?sid=two', { body: 'abc' })), 'w0');
  connection.close();
  assert.strictEqual(await workers[0].exited, 0);
});

test('connections that wait to be handed back when the channel ends are answered here, and the worker ends', async (t) => {
  const { urls, workers } = await routes(t);
  const connections = await Promise.all(Array.from({ length: 5 }, () => connect(urls[0])));
  for (const connection of connections) assert.strictEqual(await slotOf(connection.exchange('GET', '/?sid=one')), 'w0');
  // We stop reading, so nothing is acknowledged, and then are gone: the first is on its way and
  // lost, the others still wait.
  const child = workers[0].process;
  const channel = child[Object.getOwnPropertySymbols(child).find(({ description }) => description === 'kChannelHandle')];
  channel.readStop();
  for (const connection of connections) connection.send('POST', '/?sid=two', { body: 'abc' });
  await sleep(200);
  child.disconnect();
  const answers = await Promise.all(connections.map((connection) => connection.response()));
  const statuses = answers.map(({ status, error }) => status ?? error);
  assert.deepStrictEqual(statuses.sort(), [200, 200, 200, 200, 'CLOSED']);
  for (const connection of connections) connection.close();
  await eventually('the worker has ended', () => child.exitCode !== null || child.signalCode !== null);
  assert.strictEqual(workers[0].output(), '');
});
