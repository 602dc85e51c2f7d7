// Frameworks as they are, two workers each, under a primary that plays sidetrack.
'use strict';

const assert = require('node:assert');
const crypto = require('node:crypto');
const path = require('node:path');
const { test } = require('node:test');
const { connect, eventually, sidetrack } = require('../../../tests/node/primary');

const file = (name) => path.join(__dirname, 'workers', name);
const KEYS = { query: 'query:sid', header: 'header:X-Session', cookie: 'cookie:session' };

async function pair(t, name, options) {
  const primary = sidetrack(t, { hold: 50, ...options });
  const workers = [await primary.start(file(name), options), await primary.start(file(name), options)];
  const connections = [];
  for (const worker of workers) connections.push(await connect(await worker.url()));
  t.after(() => connections.forEach((connection) => connection.close()));
  return { primary, workers, connections };
}

const carrying = {
  query: (id, target) => [`${target}?sid=${id}`, {}],
  header: (id, target) => [target, { 'X-Session': id }],
  cookie: (id, target) => [target, { Cookie: `theme=dark; session=${id}` }],
};

for (const framework of ['express.js', 'fastify.js', 'nest.js']) {
  for (const [kind, key] of Object.entries(KEYS)) {
    test(`${framework}: sessions by ${kind}, interleaved on one connection`, async (t) => {
      const { primary, workers, connections } = await pair(t, framework, { key, env: { SESSIONS: kind } });
      const ids = [];
      for (const [i, connection] of connections.entries()) {
        const { status, body } = await connection.exchange('GET', '/begin');
        assert.strictEqual(status, 200);
        ids.push(JSON.parse(body).id);
        assert.strictEqual(primary.owners.get(ids[i]), workers[i], 'announced before the answer');
      }
      const [connection] = connections;
      const ask = (method, target, i, body) => {
        const [where, headers] = carrying[kind](ids[i], target);
        return connection.exchange(method, where, { headers: { ...headers, 'Content-Type': 'application/octet-stream' }, body });
      };
      for (let n = 1; n <= 10; n++) {
        for (const i of [1, 0]) {
          const body = n % 2 ? crypto.randomBytes(n * n * 1000) : undefined;
          const answer = await ask(body ? 'POST' : 'GET', '/count', i, body);
          assert.strictEqual(answer.status, 200, answer.body);
          assert.deepStrictEqual(JSON.parse(answer.body), { slot: `w${i}`, count: n, bytes: body?.length ?? 0 });
        }
      }
      assert.ok(primary.handBacks.length >= 19);
      assert.ok(primary.handBacks.every(({ final }) => !final));

      assert.strictEqual((await ask('DELETE', '/end', 1)).status, 204);
      await eventually('closed', () => workers[1].sids('closed').includes(ids[1]));
      assert.strictEqual((await ask('GET', '/count', 1)).status, 404);
      assert.strictEqual(primary.handBacks.at(-1).final, true);
      assert.strictEqual((await ask('GET', '/count', 0)).status, 200);
      assert.deepStrictEqual(workers.map((worker) => worker.sids('opened')), ids.map((id) => [id]));
      assert.deepStrictEqual(workers.map(({ output }) => output()), ['', '']);
      assert.strictEqual(connection.ended(), false);
    });
  }
}

test('express-session: its encoded cookie is one session, however often it is set', async (t) => {
  const { primary, workers, connections } = await pair(t, 'express-session.js', { key: 'cookie:connect.sid' });
  const cookies = [];
  for (const connection of connections) {
    const { headers } = await connection.exchange('GET', '/count');
    cookies.push(headers['set-cookie'].split(';')[0]);
    assert.match(cookies.at(-1), /=s%3A/);
  }
  await eventually('announced', () => primary.owners.size === 2);
  for (let n = 2; n <= 6; n++) {
    for (const i of [1, 0]) {
      const { body } = await connections[0].exchange('GET', '/count', { headers: { Cookie: cookies[i] } });
      assert.deepStrictEqual(JSON.parse(body), { slot: `w${i}`, count: n });
    }
  }
  for (const worker of workers) assert.strictEqual(worker.of('opened').length, 1);
});

test('without the preload an import does the same', async (t) => {
  const { primary, workers, connections: [connection, other] } = await pair(t, 'express.js', { key: 'query:sid', shim: false, env: { SESSIONS: 'query', NODE_OPTIONS: `--require ${path.join(__dirname, '../index.js')}` } });
  const ids = [];
  for (const each of [connection, other]) ids.push(JSON.parse((await each.exchange('GET', '/begin')).body).id);
  for (const i of [1, 0, 1]) {
    const { body } = await connection.exchange('GET', `/count?sid=${ids[i]}`);
    assert.strictEqual(JSON.parse(body).slot, `w${i}`);
  }
  assert.strictEqual(primary.handBacks.length, 3);
  for (const worker of workers) assert.strictEqual(worker.of('hello').length, 1);
});

for (const shim of [true, false]) {
  test(`an ES module imports it ${shim ? 'beside' : 'instead of'} the preload`, async (t) => {
    const primary = sidetrack(t, { shim });
    const worker = await primary.start(file('esm.mjs'));
    const connection = await connect(await worker.url());
    assert.strictEqual((await connection.exchange('GET', '/begin')).body, 'w0');
    assert.deepStrictEqual(worker.messages.find((message) => 'active' in message), { active: true, slot: 'w0', same: true });
    assert.deepStrictEqual(worker.of('opened'), [{ type: 'sidetrack:opened', sid: 'from-esm', ends: false }]);
    assert.strictEqual(worker.of('hello').length, 1);
    connection.close();
    await eventually('counted', () => worker.closedSockets() === 1);
  });
}
