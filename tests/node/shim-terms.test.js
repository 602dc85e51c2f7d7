// What sidetrack tells a worker of its place: the tag of its session ids, and how long it remembers.
'use strict';

const assert = require('node:assert');
const net = require('node:net');
const path = require('node:path');
const { test } = require('node:test');
const { once } = require('node:events');
const { io } = require('socket.io-client');
const { exchange, handshake, sleep } = require('./clients/lib');
const { eventually } = require('./primary');
const { FOLDER: TEMP, program } = require('./program');
const { SERVER, sessionPath, start, text } = require('./worker');

const SDK = require.resolve('../../sdk/node');

for (const [name, ids, expected] of [
  ['engine.io has made', '', /^w2\.[\w-]{20}$/],
  ['the program makes', 'io.engine.generateId = () => "own-" + Math.random()', /^w2\.own-0\.\d+$/],
  ['the program makes slowly', 'io.engine.generateId = async () => { await new Promise((r) => setTimeout(r, 20)); return "slow-" + Math.random() }', /^w2\.slow-0\.\d+$/],
  ['the program has tagged', 'io.engine.generateId = async () => "w2." + Math.random()', /^w2\.0\.\d+$/],
]) {
  test(`ids that ${name} begin with the tag, once, and are announced so`, async (t) => {
    const worker = start(t, program(SERVER.replace('Server(server)', 'Server(server, { allowEIO3: true })') + ids), { env: { SIDETRACK_SID_TAG: 'w2' } });
    const url = await worker.url();
    const seen = [];
    for (const transports of [['polling'], ['websocket'], ['polling', 'websocket']]) {
      const socket = io(url.href, { transports, reconnection: false, forceNew: true });
      t.after(() => socket.close());
      await once(socket, 'connect');
      seen.push(socket.io.engine.id);
    }
    const { body } = await exchange(url, { path: '/socket.io/?EIO=3&transport=polling' });
    seen.push(/"sid":"([^"]+)"/.exec(body)[1]);
    for (const sid of seen) assert.match(sid, expected);
    await eventually(() => `${seen}; ${worker.sids('opened')}`, () => worker.sids('opened').length === seen.length);
    assert.deepStrictEqual(worker.sids('opened'), seen);
    const { status } = await exchange(url, { method: 'POST', path: sessionPath(seen[0]), headers: text, body: '3' });
    assert.strictEqual(status, 200);
  });
}

test('ids are not tagged where sidetrack looks elsewhere for them; the program may tag its own', async (t) => {
  const worker = start(t, program(SERVER + `process.send({ tagged: require(${JSON.stringify(SDK)}).tagged('a') })`), {
    env: { SIDETRACK_SID_TAG: 'w2', SIDETRACK_SESSION_KEY: 'cookie:x' },
  });
  assert.doesNotMatch((await handshake(await worker.url())).sid, /\./);
  await eventually('tagged', () => worker.messages.some(({ tagged }) => tagged === 'w2.a'));
});

test('a session is remembered as long as sidetrack says', async (t) => {
  const file = program(`
    const { sessions } = require(${JSON.stringify(SDK)});
    sessions.open('a', { ends: false });
    setTimeout(() => process.send({ own: sessions.own('a') }), 1100);
    process.on('message', () => {});`);
  for (const [env, own] of [[{ SIDETRACK_SESSION_IDLE: '1' }, false], [{ SIDETRACK_SESSION_IDLE: 'soon' }, true], [{}, true]]) {
    const worker = start(t, file, { env });
    await eventually('asked', () => worker.messages.some((message) => message.own === own));
    assert.strictEqual(worker.output(), '');
  }
});

test('the tag and the time of remembering are those of the sidetrack that was joined last', async (t) => {
  const place = path.join(TEMP, 'join.sock');
  const worker = start(t, program(`
    const { sessions, tagged } = require(${JSON.stringify(SDK)});
    const server = require('http').createServer(async (req, res) => {
      if (req.url === '/open') await sessions.open('a', { ends: false });
      res.end(JSON.stringify({ tagged: tagged('a'), own: sessions.own('a') }));
    });
    require('engine.io').attach(server, { path: '/engine.io' });
    server.listen({ port: 0, exclusive: true }, () => process.send({ port: server.address().port }));`),
  { env: { SIDETRACK_JOIN: place, SIDETRACK_SID_TAG: 'w0', SIDETRACK_SESSION_IDLE: '1' } });
  await eventually('listens', () => worker.messages.some(({ port }) => port));
  const url = new URL(`http://127.0.0.1:${worker.messages.find(({ port }) => port).port}`);
  const state = async (at = '/') => JSON.parse((await exchange(url, { path: at })).body);
  assert.deepStrictEqual(await state('/open'), { tagged: 'w0.a', own: true });
  await sleep(1100);
  assert.deepStrictEqual(await state(), { tagged: 'w0.a', own: false });

  const channels = [];
  const answers = [{ slot: 'w7', sid_tag: 'w7', session_idle: 1800 }, { slot: 'w7', sid_tag: null }];
  const door = net.createServer((socket) => {
    channels.push(socket);
    socket.on('error', () => {});
    socket.once('data', () => socket.write(`${JSON.stringify({ type: 'sidetrack:joined', id: channels.length, session_key: 'query:sid', keepalive: 'hand-back', ...answers[channels.length - 1] })}\n`));
  });
  t.after(() => door.close());
  await once(door.listen(place), 'listening');
  worker.worker.process.disconnect();
  for (const [count, expected] of [[1, /^w7\.[\w-]{20}$/], [2, /^[\w-]{20}$/]]) {
    await eventually(() => `joined ${count} times; ${worker.output()}`, () => channels.length === count);
    const { sid } = await (async () => {
      for (const until = Date.now() + 5000; ;) {
        const answer = await handshake(url, { path: '/engine.io/' });
        if (expected.test(answer.sid) || Date.now() > until) return answer;
        await sleep(10);
      }
    })();
    assert.match(sid, expected);
    assert.strictEqual((await state('/open')).own, true);
    await sleep(1100);
    assert.strictEqual((await state()).own, true);
    channels[count - 1].destroy();
  }
});
