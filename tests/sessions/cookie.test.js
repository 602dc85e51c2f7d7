// Users told apart by a cookie, many of them on each connection: what the pool of a proxy in front
// does to a server.
'use strict';

const assert = require('node:assert');
const { pooled, visitor } = require('./pool');
const { all, served } = require('./sidetrack');

const CONNECTIONS = 5;

served('sixty users share five connections, and every counter counts exactly', { example: 'cookie', key: 'cookie:app' }, async ({ url }) => {
  const pool = pooled(CONNECTIONS);
  const workers = new Set();
  await all(60, async () => {
    const user = visitor(pool, url);
    const { count, pid } = await user.visit();
    assert.strictEqual(count, 1);
    workers.add(pid);
    for (let count = 2; count <= 12; count++) assert.deepStrictEqual(await user.visit(), { count, pid });
  });
  assert.ok(pool.made <= CONNECTIONS, `${pool.made} connections`);
  assert.ok(workers.size > 1, 'several workers have users');
  await pool.close();
  return (figures) => {
    assert.strictEqual(figures.sessions_opened, 60);
    assert.ok(figures.handed_back > 0, JSON.stringify(figures));
  };
});

served('a session ends with its cookie, and with its worker; the next visit begins another', { example: 'cookie', key: 'cookie:app' }, async (sidetrack) => {
  const pool = pooled(CONNECTIONS);
  const users = await all(12, async () => {
    const user = visitor(pool, sidetrack.url);
    const { pid } = await user.visit();
    return { user, pid, cookie: user.cookie() };
  });

  const leaver = users[0];
  assert.deepStrictEqual(await leaver.user.leave(), { pid: leaver.pid });
  assert.strictEqual(leaver.user.cookie(), 'app=');
  assert.strictEqual((await leaver.user.visit()).count, 1);
  assert.notStrictEqual(leaver.user.cookie(), leaver.cookie);

  const victim = users[1].pid;
  await sidetrack.replace(victim);
  await all(users.length - 1, async (i) => {
    const { user, pid, cookie } = users[i + 1];
    const visit = await user.visit();
    // The cookie of a session that is no more is replaced by the program itself.
    assert.strictEqual(visit.count, pid === victim ? 1 : 2);
    assert.strictEqual(user.cookie() === cookie, pid !== victim);
    assert.deepStrictEqual(await user.visit(), { count: visit.count + 1, pid: visit.pid });
  });
  await pool.close();
});
