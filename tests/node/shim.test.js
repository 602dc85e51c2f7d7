// The shim, in real workers under a real cluster primary: Node's own, whose place sidetrack takes on
// the same wire.
'use strict';

const assert = require('node:assert');
const { execFile, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { test } = require('node:test');
const { once } = require('node:events');
const { io } = require('socket.io-client');
const WebSocket = require('ws');
const { exchange, handshake, sleep } = require('./clients/lib');
const { SHIM, eventually } = require('./primary');
const { FOLDER: TEMP, bundled, program } = require('./program');
const { SERVER, sessionPath, start, text } = require('./worker');

const WORKERS = path.join(__dirname, 'workers');

/** Runs one of the clients: what it counted. */
const client = (name, ...args) => new Promise((resolve) => {
  execFile(process.execPath, [path.join(__dirname, 'clients', name), ...args], (_, stdout) => resolve(JSON.parse(stdout)));
});

const closeSession = (url, sid) => exchange(url, { method: 'POST', path: sessionPath(sid), headers: text, body: '1' });

/** A raw WebSocket-only Engine.IO session. */
async function webSocketSession(url) {
  const socket = new WebSocket(`ws://${url.host}/socket.io/?EIO=4&transport=websocket`);
  const [data] = await once(socket, 'message');
  return { socket, sid: JSON.parse(String(data).slice(1)).sid };
}

// --- a. hello, and silence --------------------------------------------------------------------------

test('says hello first, and prints nothing', async (t) => {
  const file = program('process.send("mine")');
  const { messages, output } = start(t, file);
  await eventually('both', () => messages.length === 2);
  assert.deepStrictEqual(messages, [
    { type: 'sidetrack:hello', shim: 1, node: process.version, main: file, replays: true },
    'mine',
  ]);
  assert.strictEqual(output(), '');
});

test('does nothing in programs that are no workers', () => {
  const run = (env, options = {}) => spawnSync(process.execPath, ['-p', 'Object.keys(require.cache).length + " " + require("module")._load.toString().includes("engine.io") + " " + process.env.NODE_OPTIONS'], {
    env: { ...process.env, NODE_OPTIONS: `--require ${SHIM}`, ...env }, encoding: 'utf8', ...options,
  });
  for (const env of [{}, { SIDETRACK_SLOT: 'w0' }, { SIDETRACK_SLOT: 'w0', NODE_UNIQUE_ID: '1' }]) {
    const { status, stdout, stderr } = run(env);
    assert.deepStrictEqual([status, stdout, stderr], [0, `1 false --require ${SHIM}\n`, '']);
  }
});

test('children and threads of a worker are left alone', async (t) => {
  const file = program(`
    const { fork } = require('child_process');
    const { Worker, isMainThread, parentPort } = require('worker_threads');
    const look = () => ({ options: process.env.NODE_OPTIONS, slot: process.env.SIDETRACK_SLOT, patched: require('module')._load.toString().includes('engine.io') });
    if (!isMainThread) parentPort.postMessage(look());
    else if (process.argv[2] === 'child') process.send(look());
    else {
      fork(__filename, ['child']).on('message', (saw) => process.send({ who: 'child', saw }));
      new Worker(__filename).on('message', (saw) => process.send({ who: 'thread', saw }));
      process.send({ who: 'worker', saw: look() });
    }`);
  for (const [options, left] of [[`--require "${SHIM}"`, undefined], [`--no-warnings --require=${SHIM} --require node:path`, '--no-warnings --require node:path']]) {
    const { messages } = start(t, file, { env: { NODE_OPTIONS: options } });
    const saw = (who) => eventually(who, () => messages.find((message) => message.who === who)?.saw);
    assert.deepStrictEqual(await saw('worker'), { ...(left && { options: left }), slot: 'w0', patched: true });
    assert.deepStrictEqual(await saw('child'), { ...(left && { options: left }), slot: 'w0', patched: false });
    assert.strictEqual((await saw('thread')).patched, false);
    assert.strictEqual(messages.filter((message) => message.type === 'sidetrack:hello').length, 1);
  }
});

// --- b. sessions ------------------------------------------------------------------------------------

for (const kind of ['listen.js', 'listen.mjs', 'sticky1.js', 'sticky2.js', 'message.js']) {
  test(`${kind}: sessions are announced once, and their ends`, async (t) => {
    const worker = start(t, kind);
    const url = await worker.url();

    const { sid } = await handshake(url);
    await eventually('opened', () => worker.sids('opened').includes(sid));
    await closeSession(url, sid);
    await eventually('closed', () => worker.sids('closed').includes(sid));

    const { socket, sid: second } = await webSocketSession(url);
    await eventually('opened', () => worker.sids('opened').includes(second));
    assert.deepStrictEqual(worker.sids('closed'), [sid]);
    socket.close();
    await eventually('closed', () => worker.sids('closed').includes(second));

    // A real client, upgrade included.
    const client = io(url.href, { forceNew: true, reconnection: false });
    await once(client.io.engine, 'upgrade');
    const third = client.io.engine.id;
    assert.strictEqual(await client.emitWithAck('echo', 'hello'), 'hello');
    client.disconnect();
    await eventually('closed', () => worker.sids('closed').includes(third));
    assert.deepStrictEqual(worker.sids('opened'), [sid, second, third]);
    assert.deepStrictEqual(worker.sids('closed'), [sid, second, third]);
    assert.strictEqual(worker.output().replace(/^listening on \d+\n/, ''), '');
  });
}

test('a bundled server: polling sessions are announced once', async (t) => {
  const worker = start(t, bundled());
  const url = await worker.url();
  const { sid } = await handshake(url);
  const client = io(url.href, { forceNew: true, reconnection: false });
  await once(client.io.engine, 'upgrade');
  const second = client.io.engine.id;
  assert.strictEqual(await client.emitWithAck('echo', 'hello'), 'hello');
  client.disconnect();
  await eventually('opened', () => worker.sids('opened').length >= 2);
  await sleep(50);
  assert.deepStrictEqual(worker.sids('opened'), [sid, second]);
});

test('a bundled server: the older protocol and JSONP are understood', async (t) => {
  const file = program(`
    const { Server } = require(process.env.HIDDEN); // by a name that does not tell
    const server = require('http').createServer();
    new Server({ allowEIO3: true }).attach(server, { path: '/socket.io' });
    server.listen(process.env.PORT);`);
  const hidden = path.join(TEMP, 'hidden.js');
  require('esbuild').buildSync({ stdin: { contents: 'module.exports = require("engine.io")', resolveDir: __dirname }, outfile: hidden, bundle: true, platform: 'node', logLevel: 'error' });
  const worker = start(t, file, { env: { HIDDEN: hidden } });
  const url = await worker.url();
  for (const query of ['EIO=4', 'EIO=3', 'EIO=3&b64=1', 'EIO=3&j=0']) {
    const { status, body } = await exchange(url, { path: `/socket.io/?${query}&transport=polling` });
    assert.strictEqual(status, 200);
    const sid = /sid\\?":\\?"([\w-]+)/.exec(body)[1];
    await eventually(`opened with ${query}`, () => worker.sids('opened').includes(sid));
  }
  assert.strictEqual(worker.sids('opened').length, 4);
});

for (const [name, code, expected] of [
  ['of the instance', 'io.engine.generateId = (req) => "own-" + req.url.length + (this.n = (this.n || 0) + 1)', /^own-\d+$/],
  ['that is slow', 'io.engine.generateId = async () => { await new Promise((r) => setTimeout(r, 50)); return "slow-" + Math.random() }', /^slow-/],
  ['of the class', 'Object.getPrototypeOf(Object.getPrototypeOf(io.engine)).generateId = () => "class-" + Math.random()', /^class-/],
  ['that builds on the original', 'const plain = io.engine.generateId; io.engine.generateId = (req) => "w0." + plain.call(io.engine, req)', /^w0\.[\w-]{20}$/],
]) {
  test(`a generateId ${name} keeps working, and what it resolves to is announced`, async (t) => {
    const worker = start(t, program(SERVER + code));
    const url = await worker.url();
    for (let i = 0; i < 2; i++) {
      const { sid, error } = await handshake(url);
      assert.strictEqual(error, undefined);
      assert.match(sid, expected);
      await eventually('opened', () => worker.sids('opened')[i] === sid);
      const answer = await exchange(url, { method: 'POST', path: sessionPath(sid), headers: text, body: '40' });
      assert.strictEqual(answer.status, 200);
    }
  });
}

const ASYNC = 'io.engine.generateId = async () => "a" + Math.random()';
for (const [ids, env] of [['', {}], [ASYNC, {}], [ASYNC, { SIDETRACK_SID_TAG: 'w0' }]]) {
  test(`no first frame is missed ${ids && 'with an asynchronous generateId'} ${env.SIDETRACK_SID_TAG ? 'and a tag' : ''}`, async (t) => {
    const worker = start(t, program(SERVER.replace('Server(server)', 'Server(server, { cors: { origin: "*" } })') + ids), { env });
    const result = await client('ws-first-frame.js', (await worker.url()).href, '--n', '100', '--wait', '3000');
    assert.ok(result.ok, JSON.stringify(result));
    await eventually('opened', () => worker.sids('opened').length === 100);
  });
}

test('a program that replaces or reads generateId between handshakes meets its own', async (t) => {
  const worker = start(t, program(SERVER + `
    const plain = io.engine.generateId;
    io.on('connection', () => {});
    io.engine.once('connection', () => {
      process.send({ untouched: io.engine.generateId === plain && !Object.hasOwn(io.engine, 'generateId') });
      io.engine.generateId = () => 'later';
    });`));
  const url = await worker.url();
  const { sid } = await handshake(url);
  assert.strictEqual((await handshake(url)).sid, 'later');
  await eventually('both', () => worker.sids('opened').length === 2);
  assert.deepStrictEqual(worker.sids('opened'), [sid, 'later']);
  assert.deepStrictEqual(worker.messages.filter((message) => 'untouched' in message), [{ untouched: true }]);
});

test('failed handshakes: no id, no announcement; an id, its end', async (t) => {
  const worker = start(t, program(SERVER + `
    let n = 0;
    io.engine.generateId = () => { if (n++ === 0) throw new Error('no id'); return 'id-' + n; };
    io.engine.createTransport = () => { throw new Error('no transport'); };`));
  const url = await worker.url();
  assert.strictEqual((await handshake(url)).error, 'HTTP 400');
  assert.strictEqual((await handshake(url)).error, 'HTTP 400');
  await eventually('closed', () => worker.sids('closed').length);
  assert.deepStrictEqual(worker.sids('opened'), ['id-2']);
  assert.deepStrictEqual(worker.sids('closed'), ['id-2']);
});

test('an exception in a connection listener stays fatal', async (t) => {
  const worker = start(t, program(SERVER + 'io.engine.on("connection", () => { throw new Error("a bug of the program") })'));
  await handshake(await worker.url());
  assert.strictEqual(await worker.exited, 1);
  assert.match(worker.output(), /a bug of the program/);
});

test('several copies of engine.io in one process', async (t) => {
  const copy = path.join(TEMP, 'deep/node_modules/engine.io');
  fs.cpSync(path.join(__dirname, 'node_modules/engine.io'), copy, { recursive: true });
  const worker = start(t, program(`
    const server = require('http').createServer();
    const copies = [require('engine.io'), require(${JSON.stringify(copy)})];
    if (copies[0] === copies[1]) throw new Error('one copy');
    copies.forEach((engine, i) => engine.attach(server, { path: '/copy' + i, destroyUpgrade: false }));
    server.listen(process.env.PORT);`));
  const url = await worker.url();
  const sids = [await handshake(url, { path: '/copy0/' }), await handshake(url, { path: '/copy1/' })].map(({ sid }) => sid);
  await eventually('both', () => worker.sids('opened').length === 2);
  assert.deepStrictEqual(worker.sids('opened'), sids);
});

test('engine.io imported by an ES module', async (t) => {
  const worker = start(t, program(`
    import { Server } from 'engine.io';
    import http from 'node:http';
    const server = http.createServer();
    new Server().attach(server, { path: '/socket.io' });
    server.listen(process.env.PORT);`, 'engine.mjs'));
  const { sid } = await handshake(await worker.url());
  await eventually('opened', () => worker.sids('opened').includes(sid));
  assert.strictEqual(worker.sids('opened').length, 1);
});

test('with a full channel the response waits for the announcement', async (t) => {
  const worker = start(t, program(SERVER + `
    io.engine.generateId = () => {
      process.send('x'.repeat(2e6)); // more than the kernel takes at once
      return 'patient';
    };`));
  const url = await worker.url();
  await worker.message('hello');
  const child = worker.worker.process;
  const channel = child[Object.getOwnPropertySymbols(child).find((symbol) => symbol.description === 'kChannelHandle')];
  channel.readStop();
  let answered = false;
  // The connection still gets there: only what the worker says is not read.
  const shaken = handshake(url).then((answer) => {
    answered = true;
    return answer;
  });
  await sleep(500);
  assert.strictEqual(answered, false);
  assert.deepStrictEqual(worker.sids('opened'), []);
  channel.readStart();
  assert.strictEqual((await shaken).sid, 'patient');
  await eventually('opened', () => worker.sids('opened').includes('patient'));
});

// --- c. sockets -------------------------------------------------------------------------------------

for (const kind of ['listen.js', 'message.js', 'sticky2.js']) {
  test(`${kind}: closed sockets are counted, in bursts`, async (t) => {
    const worker = start(t, kind);
    const url = await worker.url();
    for (let i = 0; i < 20; i++) assert.strictEqual((await exchange(url, { path: '/pid' })).status, 200);
    await eventually('20 sockets', () => worker.closedSockets() === 20);
    await Promise.all(Array.from({ length: 200 }, () => exchange(url, { path: '/pid' })));
    await eventually('220 sockets', () => worker.closedSockets() === 220);
    assert.ok(worker.of('sockets-closed').length < 100, `${worker.of('sockets-closed').length} messages`);

    // Open ones do not count; upgraded ones do, when they close.
    const { socket } = await webSocketSession(url);
    await sleep(50);
    assert.strictEqual(worker.closedSockets(), 220);
    socket.terminate();
    await eventually('221 sockets', () => worker.closedSockets() === 221);
  });
}

test('only sockets that were handed over are counted', async (t) => {
  const worker = start(t, program(`
    const net = require('net');
    net.createServer((socket) => socket.destroy()).listen(process.env.PORT);
    const own = net.createServer((socket) => socket.end()).listen({ port: 0, exclusive: true }, () => process.send({ own: own.address().port }));`));
  const url = await worker.url();
  const own = await eventually('own', () => worker.messages.find((message) => message.own));
  for (let i = 0; i < 5; i++) {
    await exchange(new URL(`http://127.0.0.1:${own.own}`), {});
    await exchange(url, {});
  }
  await eventually('five', () => worker.closedSockets() === 5);
  await sleep(50);
  assert.strictEqual(worker.closedSockets(), 5);
});

// --- d. timeouts ------------------------------------------------------------------------------------

test('a server that never listens enforces its timeouts, and is not told that it listens', async (t) => {
  const worker = start(t, program(`
    const server = require('http').createServer({ headersTimeout: 400, requestTimeout: 600, connectionsCheckingInterval: 100 },
      (req, res) => req.on('end', () => res.end('done')).resume());
    server.on('listening', () => process.send('told'));
    process.on('message', (m, socket) => socket && server.emit('connection', socket));`));
  const url = await worker.url();
  await exchange(url, {}); // the first socket starts the checks, for all that follow
  const stalled = (request) => exchange(url, { timeout: 5000, send: (socket) => socket.write(request) });
  const [head, body] = await Promise.all([
    stalled('GET / HTTP/1.1\r\nHost: x\r\n'),
    stalled('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc'),
  ]);
  assert.deepStrictEqual([head.status, body.status], [408, 408]);
  assert.ok(!worker.messages.includes('told'));
});

// --- e. the end of the channel ----------------------------------------------------------------------

const CHATTY = `
  setInterval(() => process.send({ tick: 1 }), 20);   // would throw, and would keep the process
  process.on('disconnect', () => { try { process.send('late') } catch (error) { console.error(error) } });
`;

for (const kind of ['listen.js', 'message.js']) {
  test(`${kind}: live sockets outlive the channel, and the process ends with the last`, async (t) => {
    const worker = start(t, program(CHATTY + `require(${JSON.stringify(path.join(WORKERS, kind))})`));
    const url = await worker.url();
    const client = io(url.href, { transports: ['websocket'], forceNew: true, reconnection: false });
    await once(client, 'connect');
    worker.worker.process.disconnect();
    await sleep(500);
    assert.strictEqual(await client.emitWithAck('echo', 'still here'), 'still here');
    assert.strictEqual(worker.worker.process.exitCode, null);
    client.disconnect();
    assert.strictEqual(await worker.exited, 0);
    assert.strictEqual(worker.output().replace(/^listening on \d+\n/, ''), '');
  });
}

test('without sockets the process ends at once', async (t) => {
  const worker = start(t, program(CHATTY + `require(${JSON.stringify(path.join(WORKERS, 'listen.js'))})`));
  await exchange(await worker.url(), { path: '/pid' });
  await eventually('closed', () => worker.closedSockets() === 1);
  const at = Date.now();
  worker.worker.process.disconnect();
  assert.strictEqual(await worker.exited, 0);
  assert.ok(Date.now() - at < 500);
});

test('a planned disconnect: the process ends by itself', async (t) => {
  const worker = start(t, 'before-exit.js');
  const url = await worker.url();
  const { socket } = await webSocketSession(url);
  worker.worker.disconnect();
  await sleep(300);
  assert.strictEqual(worker.worker.process.exitCode, null);
  socket.close();
  assert.strictEqual(await worker.exited, 0);
  await eventually('output', () => /beforeExit\nexit 0\n$/.test(worker.output()));
});

test('a planned disconnect: timers do not keep the process', async (t) => {
  const worker = start(t, 'before-exit.js', { env: { TICK: '1' } });
  await worker.url();
  worker.worker.disconnect();
  assert.strictEqual(await worker.exited, 0);
  await eventually('output', () => /^listening on \d+\nexit 0\n$/.test(worker.output()));
});

test('other errors of the worker object stay fatal', async (t) => {
  const worker = start(t, program('require("cluster").worker.emit("error", new Error("not ours"))'));
  assert.strictEqual(await worker.exited, 1);
  assert.match(worker.output(), /not ours/);
});

// --- f. wrappers ------------------------------------------------------------------------------------

test('programs that start the server as their child are named', async (t) => {
  for (const [file, name] of [['npm', 'npm'], ['npm-cli.js', 'npm'], ['npx-cli.js', 'npx'], ['yarn-4.5.1.cjs', 'yarn'], ['pnpm.cjs', 'pnpm'], ['nodemon.js', 'nodemon'], ['pm2-runtime', 'pm2'], ['npm-server.js', null], ['server.js', null]]) {
    const worker = start(t, program('process.send("loaded")', file));
    await eventually('loaded', () => worker.messages.includes('loaded'));
    assert.deepStrictEqual(worker.of('wrapper'), name ? [{ type: 'sidetrack:wrapper', name }] : [], file);
  }
});

test('node --watch is named', { skip: process.versions.node.startsWith('18.') && 'passes nothing on' }, async (t) => {
  const worker = start(t, program('process.on("disconnect", () => process.exit())'), { execArgv: ['--watch'] });
  assert.strictEqual((await worker.message('wrapper')).name, 'node --watch');
  assert.deepStrictEqual(worker.of('hello'), []);
});

// --- g. message listeners ---------------------------------------------------------------------------

test('the first message listener of the program is reported, once', async (t) => {
  for (const [code, count] of [
    ['', 0],
    ['process.on("disconnect", () => {})', 0],
    ['process.on("message", () => {}); process.on("message", () => {}); cluster.worker.on("message", () => {})', 1],
    ['cluster.worker.on("message", () => {}); process.once("message", () => {})', 1],
  ]) {
    const worker = start(t, program(`const cluster = require('cluster'); ${code}; process.send('loaded')`));
    await eventually('loaded', () => worker.messages.includes('loaded'));
    await sleep(20);
    assert.strictEqual(worker.of('listens').length, count, code);
  }
});

// --- h. probes --------------------------------------------------------------------------------------

async function probe(worker) {
  const server = net.createServer({ pauseOnConnect: true }, (socket) => {
    worker.worker.send({ type: 'sticky:connection', data: '', sidetrack: 'probe' }, socket);
  });
  await once(server.listen(0), 'listening');
  const at = Date.now();
  const answer = await exchange(new URL(`http://127.0.0.1:${server.address().port}`), { path: '/pid', timeout: 8000 });
  server.close();
  return { ...answer, ms: Date.now() - at };
}

test('a probe that nobody takes is closed; one that is taken is served', async (t) => {
  const deaf = start(t, 'broadcast.js');
  const taking = [start(t, 'sticky1.js'), start(t, 'sticky2.js'), start(t, 'message.js')];
  await deaf.message('listens');
  const untaken = probe(deaf);
  for (const worker of taking) {
    await worker.message('listens');
    assert.strictEqual((await probe(worker)).status, 200);
    await sleep(20);
    assert.deepStrictEqual(worker.of('sockets-closed'), []); // it is no client
  }
  const { error, ms } = await untaken;
  assert.strictEqual(error, 'CLOSED');
  assert.ok(ms > 1500 && ms < 4000, `${ms} ms`);
});

// --- and nothing else -------------------------------------------------------------------------------

test('the clients find no difference', async (t) => {
  for (const kind of ['listen.js', 'message.js']) {
    const worker = start(t, kind);
    const url = (await worker.url()).href;
    for (const [name, ...args] of [
      ['sessions.js', '--n', '10', '--transport', 'polling', '--big'],
      ['sessions.js', '--n', '10', '--transport', 'upgrade'],
      ['followup.js', '--n', '50'],
      ['ws-first-frame.js', '--n', '40'],
      ['uploads.js', '--n', '2'],
      ['keepalive-mixed.js'],
    ]) {
      const result = await client(name, url, ...args);
      assert.ok(result.ok, `${kind} ${name}: ${JSON.stringify(result)}`);
    }
    const opened = worker.sids('opened').length;
    assert.strictEqual(opened, 10 + 10 + 50 + 40 + 2 + 4);
    await eventually('ends', () => worker.sids('closed').length >= 10 + 10 + 50);
  }
});
