// Joined workers outlive sidetrack: it is killed, stopped and started again around them.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const net = require('node:net');
const { test } = require('node:test');
const { once } = require('node:events');
const { io } = require('socket.io-client');
const { exchange, handshake, sleep } = require('./clients/lib');
const { host } = require('./host');
const { connect, eventually } = require('./primary');
const { program } = require('./program');

const PLAIN = { 'Content-Type': 'text/plain;charset=UTF-8' };
const poll = (sid) => `/socket.io/?EIO=4&transport=polling&sid=${sid}`;

/** Posts a packet of the session: who answered, and how. Only a refused connection is tried again. */
async function post(url, sid) {
  for (const until = Date.now() + 2000; ;) {
    const answer = await exchange(url, { method: 'POST', path: poll(sid), headers: PLAIN, body: '3' });
    if (answer.error !== 'ECONNREFUSED' || Date.now() > until) return [answer.status ?? answer.error, Number(answer.headers?.['x-worker-pid'])];
    await sleep(5);
  }
}

/** A polling session of each worker: pid → sid. */
async function sessionOfEach(url, pids) {
  const sids = new Map();
  for (let i = 0; i < 50 && sids.size < pids.length; i++) {
    const { sid, pid } = await handshake(url);
    if (!sids.has(Number(pid))) sids.set(Number(pid), sid);
  }
  assert.deepStrictEqual([...sids.keys()].sort(), [...pids].sort());
  return sids;
}

/** A client that tells when it is cut off. */
async function client(t, url, options = {}) {
  const socket = io(url.href, { transports: ['websocket'], reconnection: false, forceNew: true, ...options });
  t.after(() => socket.close());
  await once(socket, 'connect');
  socket.echo = (payload) => socket.timeout(3000).emitWithAck('echo', payload);
  socket.pid = await socket.timeout(3000).emitWithAck('whoami');
  return socket;
}

async function pair(t, file, options) {
  const sidetrack = host(t, options);
  const workers = [sidetrack.join(file), sidetrack.join(file)];
  const url = await sidetrack.start(2);
  return { sidetrack, workers, url, pids: workers.map(({ pid }) => pid) };
}

/** Sends one request on a connection that is kept: who answered. */
async function onOne(connection, sid) {
  const { status, error, headers } = await connection.exchange('POST', poll(sid), { headers: PLAIN, body: '3' });
  return [status ?? error, Number(headers?.['x-worker-pid'])];
}

for (const file of ['listen.js', 'sticky2.js', 'message.js']) {
  test(`${file}: connections and sessions outlive three sidetracks`, async (t) => {
    const { sidetrack, workers, url, pids } = await pair(t, file);
    const sids = await sessionOfEach(url, pids);
    const live = await client(t, url);
    for (const [signal, down] of [['SIGKILL', 0], ['SIGKILL', 700], ['SIGTERM', 1500]]) {
      assert.strictEqual(await sidetrack.stop(signal), signal === 'SIGTERM' ? 0 : signal);
      assert.strictEqual(await live.echo('while nobody is there'), 'while nobody is there');
      if (signal === 'SIGTERM') sidetrack.tidy();
      await sleep(down);
      const start = Date.now();
      const up = sidetrack.start(2);
      // At once: requests come before the workers do.
      const answers = await Promise.all([...sids].map(([, sid]) => post(url, sid)));
      assert.deepStrictEqual(answers, [...sids].map(([pid]) => [200, pid]));
      assert.ok(Date.now() - start < 2000, `${Date.now() - start} ms`);
      await up;
      assert.strictEqual(await live.echo('after'), 'after');
      // New ones, of which each worker gets some; also by upgrade.
      for (const [pid, sid] of await sessionOfEach(url, pids)) sids.set(pid, sid);
      const late = await client(t, url, { transports: ['polling', 'websocket'] });
      assert.strictEqual(await late.echo('new'), 'new');
      assert.ok(live.connected);
      late.close();
    }
    assert.deepStrictEqual(workers.map(({ ended }) => ended), [false, false]);
    for (const { output } of workers) assert.doesNotMatch(output, /rror/);
  });

  test(`${file}: hand-back works for old and new connections, and for requests that come in between`, async (t) => {
    const { sidetrack, url, pids } = await pair(t, file);
    const sids = await sessionOfEach(url, pids);
    const [[a, ofA], [b, ofB]] = sids;
    const old = await connect(url);
    assert.deepStrictEqual(await onOne(old, ofA), [200, a]);
    await sidetrack.stop('SIGKILL');
    await sleep(50); // a request in the very moment goes with it
    const between = onOne(old, ofB);
    await sleep(100);
    await sidetrack.start(2);
    assert.deepStrictEqual(await between, [200, b]);
    for (const [pid, sid] of [...sids, ...sids]) assert.deepStrictEqual(await onOne(old, sid), [200, pid]);
    const fresh = await connect(url);
    for (const [pid, sid] of [...sids, ...sids]) assert.deepStrictEqual(await onOne(fresh, sid), [200, pid]);
    old.close();
    fresh.close();
    await sidetrack.stop('SIGTERM');
    const handedBack = [...sidetrack.log().matchAll(/"handed_back":(\d+)/g)].map(([, count]) => Number(count));
    assert.ok(handedBack.at(-1) >= 6, String(handedBack));
  });
}

const SDK = require.resolve('../../sdk/node');

test('many sessions are known again in time', async (t) => {
  const COUNT = 20000;
  const file = program(`
    const { sessions } = require(${JSON.stringify(SDK)});
    require('http').createServer(async (req, res) => {
      const { searchParams, pathname } = new URL(req.url, 'http://x');
      if (pathname === '/begin') for (let i = 0; i < ${COUNT}; i++) await sessions.open(process.pid + '-' + i);
      const sid = searchParams.get('sid');
      res.statusCode = sid === null || sessions.own(sid) ? 200 : 400;
      res.end(String(process.pid));
    }).listen(0);`);
  const { sidetrack, url, pids } = await pair(t, file);
  const begun = new Set();
  while (begun.size < 2) begun.add(Number((await exchange(url, { path: '/begin' })).body));
  await sidetrack.stop('SIGKILL');
  const up = sidetrack.start(2);
  const asked = pids.flatMap((pid) => [0, 1, COUNT / 2, COUNT - 1].map((i) => [pid, `${pid}-${i}`]));
  const answers = await Promise.all(asked.map(async ([, sid]) => {
    for (const until = Date.now() + 2000; ;) {
      const { status, error, body } = await exchange(url, { path: `/?sid=${sid}` });
      if (error !== 'ECONNREFUSED' || Date.now() > until) return [status ?? error, Number(body)];
      await sleep(5);
    }
  }));
  assert.deepStrictEqual(answers, asked.map(([pid]) => [200, pid]));
  await up;
  await sidetrack.stop('SIGTERM');
  assert.match(sidetrack.log(), new RegExp(`"sessions_opened":${2 * COUNT}`));
});

test('where clients make the ids, their sessions are with the same workers again', async (t) => {
  const file = program(`require('http').createServer((req, res) => res.end(String(process.pid))).listen(0);`);
  const { sidetrack, url } = await pair(t, file, { words: ['--session-key', 'path:1', '--policy', 'round-robin'] });
  const ask = async (id) => {
    const { status, body } = await exchange(url, { path: `/${id}` });
    return status === 200 ? Number(body) : status;
  };
  const ids = Array.from({ length: 10 }, (_, i) => `room-${i}`);
  const owners = [];
  for (const id of ids) owners.push(await ask(id));
  assert.strictEqual(new Set(owners).size, 2);
  for (const signal of ['SIGKILL', 'SIGTERM']) {
    await sidetrack.stop(signal);
    // Both are ready, so that nothing is asked of a worker before it is there.
    await sidetrack.start(2);
    const again = [];
    for (const id of ids) again.push(await ask(id));
    assert.deepStrictEqual(again, owners);
  }
});

test('a request for another worker is answered here when no sidetrack comes in time', async (t) => {
  const { sidetrack, url, pids } = await pair(t, 'listen.js');
  const [[a, ofA], [, ofB]] = await sessionOfEach(url, pids);
  const connection = await connect(url);
  assert.deepStrictEqual(await onOne(connection, ofA), [200, a]);
  await sidetrack.stop('SIGKILL');
  await sleep(50);
  // What it says does not matter: it says something.
  const { status } = await connection.exchange('POST', poll(ofB), { headers: PLAIN, body: '3' });
  assert.strictEqual(status, 400);
  connection.close();
});

for (const file of ['broadcast.js', 'sticky2-broadcast.js']) {
  test(`${file}: broadcasts reach the other worker again`, async (t) => {
    const { sidetrack, url, pids } = await pair(t, file);
    const clients = [];
    while (new Set(clients.map(({ pid }) => pid)).size < 2) clients.push(await client(t, url));
    for (const signal of ['SIGKILL', 'SIGTERM']) {
      await sidetrack.stop(signal);
      await sidetrack.start(2);
      const heard = Promise.all(clients.map((one) => once(one, 'news')));
      await clients[0].timeout(3000).emitWithAck('broadcast', signal);
      assert.deepStrictEqual(await heard, clients.map(() => [signal]));
      const { sockets } = await clients[0].timeout(6000).emitWithAck('fetchSockets');
      assert.deepStrictEqual([...new Set(sockets.map(({ pid }) => pid))].sort(), [...pids].sort());
    }
  });
}

test('no descriptor is left after many restarts', async (t) => {
  const { sidetrack, workers: [worker], url, pids } = await pair(t, 'listen.js');
  const descriptors = () => fs.readdirSync(`/proc/${worker.pid}/fd`).length;
  const cycle = async (signal) => {
    await sidetrack.stop(signal);
    await sidetrack.start(2);
    await sessionOfEach(url, pids);
  };
  await cycle('SIGKILL'); // everything is loaded
  await sleep(100);
  const before = descriptors();
  for (let i = 0; i < 6; i++) await cycle(i % 2 ? 'SIGTERM' : 'SIGKILL');
  await eventually(() => `${before}, now ${descriptors()}`, () => descriptors() <= before);
  assert.strictEqual(worker.output.trim().split('\n').filter((line) => !/waiting for|listening on/.test(line)).length, 0, worker.output);
});

test('a worker that has not joined by itself ends with sidetrack', async (t) => {
  const sidetrack = host(t);
  const idle = sidetrack.join('listen.js', { before: ['env', '-u', 'SIDETRACK_JOIN'] });
  const url = await sidetrack.start(1);
  assert.strictEqual((await exchange(url, { path: '/pid' })).status, 200);
  await sidetrack.stop('SIGKILL');
  assert.strictEqual(await idle.exited, 0);
});

test('a worker ends as its program wishes', async (t) => {
  const sidetrack = host(t);
  const plain = sidetrack.join('listen.js');
  const file = program(`
    process.on('SIGTERM', () => server.close(() => process.exit(7)));
    const server = require('http').createServer((req, res) => res.end()).listen(0);`);
  const own = sidetrack.join(file);
  await sidetrack.start(2);
  await sidetrack.stop('SIGTERM');
  plain.kill('SIGTERM');
  own.kill('SIGTERM');
  assert.deepStrictEqual([await plain.exited, await own.exited], ['SIGTERM', 7]);
});

// What a program does on SIGUSR2, with its channel or without.
for (const wish of ['process.disconnect()', 'cluster.worker.disconnect()', 'cluster.worker.kill()']) {
  test(`${wish} is the end, with and without sidetrack`, async (t) => {
    const file = program(`
      const cluster = require('cluster');
      process.on('SIGUSR2', () => ${wish});
      process.prependListener('disconnect', () => require('fs').writeSync(1, 'heard'));
      require('http').createServer((req, res) => res.end()).listen(0);`);
    const sidetrack = host(t);
    const before = sidetrack.join(file);
    const between = sidetrack.join(file);
    const after = sidetrack.join(file);
    await sidetrack.start(3);
    before.kill('SIGUSR2');
    assert.strictEqual(await before.exited, 0, before.output);
    await sidetrack.stop('SIGKILL');
    await sleep(50);
    between.kill('SIGUSR2');
    assert.strictEqual(await between.exited, 0, between.output);
    await sidetrack.start(1);
    assert.doesNotMatch(after.output, /heard/);
    after.kill('SIGUSR2');
    assert.strictEqual(await after.exited, 0, after.output);
    // Without a channel, Node's kill() says no goodbye.
    const heard = [true, !wish.endsWith('kill()'), true];
    assert.deepStrictEqual([before, between, after].map(({ output }) => /heard/.test(output)), heard);
  });
}

test('the program\'s own use of the channel goes on', async (t) => {
  const file = program(`
    const cluster = require('cluster');
    const http = require('http');
    const early = process.send;
    const calls = [];
    process.send = function (message) { calls.push(message); return early.apply(process, arguments); };
    process.on('disconnect', () => console.log('disconnected'));
    let closing, late;
    const state = () => ({ connected: process.connected, channel: Boolean(process.channel), isConnected: cluster.worker.isConnected(), id: cluster.worker.id, calls: calls.length });
    const routes = {
      '/state': (res) => res.end(JSON.stringify(state())),
      '/send': (res) => { const kept = process.send({ type: 'mine' }, (error) => res.end(JSON.stringify({ kept, code: error && error.code }))); },
      '/send-blindly': (res) => { process.send({ type: 'mine' }); cluster.worker.send({ type: 'mine' }); early.call(process, { type: 'mine' }); setTimeout(() => res.end('{}'), 50); },
      '/listen': (res) => { late = http.createServer((req, res) => res.end('late')).listen(3456, () => console.log('late listens')); res.end('{}'); },
      '/close': (res) => { closing.close(); res.end('{}'); },
    };
    http.createServer((req, res) => routes[req.url](res)).listen(3000);
    closing = http.createServer((req, res) => res.end('closing')).listen(4000);`);
  const second = await freePort();
  const third = await freePort();
  const sidetrack = host(t, { words: ['--listen', `127.0.0.1:${second}=4000`, '--listen', `127.0.0.1:${third}=3456`] });
  const worker = sidetrack.join(file);
  const url = await sidetrack.start(1);
  const connection = await connect(url);
  const ask = async (path) => JSON.parse((await connection.exchange('GET', path)).body ?? assert.fail(`no answer: ${worker.output}`));
  const calls = 5; // two servers ask and listen, and one has this connection
  const first = await ask('/state');
  assert.deepStrictEqual({ ...first, id: 0 }, { connected: true, channel: true, isConnected: true, id: 0, calls });
  assert.deepStrictEqual(await ask('/send'), { kept: true, code: null });
  const body = async (port) => (await exchange(new URL(`http://127.0.0.1:${port}`), { path: '/' })).body;
  assert.strictEqual(await body(second), 'closing');

  await sidetrack.stop('SIGKILL');
  await sleep(50);
  const without = await ask('/state');
  assert.deepStrictEqual([without.connected, without.channel, without.isConnected], [false, false, false]);
  assert.deepStrictEqual(await ask('/send'), { kept: false, code: 'ERR_IPC_CHANNEL_CLOSED' });
  await ask('/send-blindly');
  await ask('/listen');
  await ask('/close');

  await sidetrack.start(1);
  const again = await ask('/state');
  assert.deepStrictEqual([again.connected, again.channel, again.isConnected], [true, true, true]);
  assert.deepStrictEqual(await ask('/send'), { kept: true, code: null });
  assert.strictEqual((await ask('/state')).calls > again.calls, true, 'its wrapper is still there');
  await eventually('listens', () => worker.output.includes('late listens'));
  for (const until = Date.now() + 5000; Date.now() < until && (await body(third)) !== 'late';) await sleep(20);
  assert.strictEqual(await body(third), 'late');
  assert.strictEqual((await exchange(url, { path: '/state' })).status, 200);
  connection.close();
  assert.doesNotMatch(worker.output, /disconnected|rror/);
  assert.strictEqual(worker.ended, false);
});

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

test('a slot that somebody else has is asked for again; one that was only given is left', async (t) => {
  const sidetrack = host(t);
  const named = sidetrack.join('listen.js', { words: ['--slot', 'web-1'] });
  await sidetrack.start(1);
  const given = sidetrack.join('listen.js');
  await sidetrack.has(2);
  for (const worker of [named, given]) worker.kill('SIGSTOP');
  await sidetrack.stop('SIGKILL');
  const up = sidetrack.start();
  const intruders = ['web-1', 'w0'].map((slot) => sidetrack.join('listen.js', { words: ['--slot', slot] }));
  await up;
  await sidetrack.has(2);
  for (const worker of [named, given]) worker.kill('SIGCONT');
  const workers = await sidetrack.has(3);
  assert.deepStrictEqual(workers.find(({ pid }) => pid === given.pid), { pid: given.pid, slot: 'w1' });
  assert.match(sidetrack.log(), /the slot web-1 is taken/);
  intruders[0].kill('SIGKILL');
  await eventually('it has its slot again', () => sidetrack.ready().workers.some(({ pid, slot }) => pid === named.pid && slot === 'web-1'));
});

test('the new sidetrack\'s terms are followed', async (t) => {
  const sidetrack = host(t);
  const file = program(`require('http').createServer((req, res) => { res.setHeader('Mcp-Session-Id', 'made-here'); res.end(); }).listen(0);`);
  const workers = [sidetrack.join(file), sidetrack.join(file)];
  const url = await sidetrack.start(2);
  const kept = { headers: { Connection: 'keep-alive' }, path: '/' };
  assert.strictEqual((await exchange(url, kept)).headers.connection, 'keep-alive');
  await sidetrack.stop('SIGTERM');
  await sidetrack.start(2, ['--session-key', 'header:Mcp-Session-Id', '--keepalive', 'close']);
  assert.strictEqual((await exchange(url, kept)).headers.connection, 'close');
  await sidetrack.stop('SIGTERM');
  assert.match(sidetrack.log(), /"sessions_opened":1/);
  // And announced again, once.
  await sidetrack.start(2, ['--session-key', 'header:Mcp-Session-Id']);
  await sidetrack.stop('SIGTERM');
  assert.strictEqual(sidetrack.log().match(/"sessions_opened":1/g).length, 2);
  assert.deepStrictEqual(workers.map(({ ended }) => ended), [false, false]);
});

test('a socket that is no sidetrack, says no, or closes is asked again; what follows a yes is not lost', async (t) => {
  const sidetrack = host(t);
  const joined = (slot) => `${JSON.stringify({ type: 'sidetrack:joined', slot, id: 9, session_key: 'query:sid', keepalive: 'hand-back' })}\n`;
  const answers = [
    (request) => joined(request.slot),
    () => 'HTTP/1.1 400 Bad Request\r\n\r\n',
    () => `${JSON.stringify({ type: 'sidetrack:refused', reason: 'no' })}\n`,
    () => 'x'.repeat(5000),
    () => null,
    (request) => joined(request.slot).replace('query:sid', 'else:sid'),
    (request) => `${joined(request.slot)}{"greeting":1}\n{"greeting":2}\n`,
  ];
  const requests = [];
  const heard = [];
  let current;
  const fake = net.createServer((connection) => {
    let text = '';
    connection.on('error', () => {});
    connection.on('data', (data) => {
      text += data;
      for (let end; (end = text.indexOf('\n')) >= 0; text = text.slice(end + 1)) {
        const message = JSON.parse(text.slice(0, end));
        if (message.type !== 'sidetrack:join') heard.push(message);
        else {
          current = connection;
          const answer = answers[requests.push(message) - 1](message);
          if (answer === null) connection.destroy();
          else connection.write(answer);
        }
      }
    });
  });
  t.after(() => fake.close());
  await once(fake.listen(sidetrack.socket), 'listening');
  const file = program(`
    process.on('message', (message) => process.send({ answered: message.greeting, id: require('cluster').worker.id }));`);
  const worker = sidetrack.join(file, { words: ['--slot', 'web-1'] });
  const of = (type) => heard.filter((message) => message.type === `sidetrack:${type}`);
  await eventually('it listens', () => of('listens').length === 1);
  current.destroy();
  await eventually('both messages', () => heard.filter(({ answered }) => answered).length === 2, 20000);
  assert.deepStrictEqual(heard.filter(({ answered }) => answered), [{ answered: 1, id: 9 }, { answered: 2, id: 9 }]);
  assert.deepStrictEqual([of('hello').length, of('listens').length], [2, 2]);
  assert.deepStrictEqual(requests.slice(1), Array(6).fill({ type: 'sidetrack:join', slot: 'web-1', pid: worker.pid }));
  assert.strictEqual(worker.ended, false);
  current.destroy();
});
