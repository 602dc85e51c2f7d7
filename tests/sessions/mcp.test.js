// MCP's own client against its own server: a session is known by the header Mcp-Session-Id.
'use strict';

const assert = require('node:assert');
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = require('@modelcontextprotocol/sdk/client/streamableHttp.js');
const { LoggingMessageNotificationSchema } = require('@modelcontextprotocol/sdk/types.js');
const { fetch } = require('undici');
const { pooled } = require('./pool');
const { all, eventually, served } = require('./sidetrack');

const MCP = { example: 'mcp', key: 'header:Mcp-Session-Id' };

/** A client whose session has begun and whose event stream is open. */
async function connected(pool, url) {
  let opened;
  const streaming = new Promise((resolve) => (opened = resolve));
  const transport = new StreamableHTTPClientTransport(new URL('/mcp', url), {
    async fetch(target, init) {
      const response = await fetch(target, { ...init, dispatcher: pool });
      if (init.method === 'GET' && response.ok) opened();
      return response;
    },
  });
  const client = new Client({ name: 'test', version: '1.0.0' });
  const notices = [];
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => void notices.push(params.data));
  await client.connect(transport);
  await streaming;
  const count = async () => JSON.parse((await client.callTool({ name: 'count' })).content[0].text);
  return { client, transport, notices, count };
}

/** Any request with this session id, as a client that has it still would send. */
const ask = (pool, url, id) =>
  fetch(new URL('/mcp', url), {
    dispatcher: pool,
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream', 'Mcp-Session-Id': id },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }),
  });

served('many sessions at once, each with one process: calls, event stream, notifications, DELETE', MCP, async ({ url }) => {
  const pool = pooled();
  const workers = new Set();
  const ids = await all(30, async () => {
    const { client, transport, notices, count } = await connected(pool, url);
    const { pid } = await count();
    workers.add(pid);
    const counts = [{ count: 1, pid }];
    for (let n = 2; n <= 10; n++) {
      counts.push({ count: n, pid });
      assert.deepStrictEqual(await count(), { count: n, pid });
    }
    await eventually('the notifications are here', () => notices.length >= counts.length);
    assert.deepStrictEqual(notices, counts);
    const id = transport.sessionId;
    await transport.terminateSession();
    await client.close();
    return id;
  });
  assert.ok(workers.size > 1, 'several workers have sessions');
  assert.strictEqual(new Set(ids).size, ids.length);
  for (const id of ids.slice(0, 5)) {
    const response = await ask(pool, url, id);
    assert.strictEqual(response.status, 404, await response.text());
  }
  const { made } = pool;
  await pool.close();
  return (figures) => {
    assert.strictEqual(figures.accepted, made);
    assert.strictEqual(figures.sessions_opened, ids.length);
    assert.ok(figures.handed_back > 0, JSON.stringify(figures));
  };
});

served('an unknown session gets the 404 of a worker, also on a used connection, and the client begins anew', MCP, async ({ url }) => {
  const pool = pooled(1);
  for (let i = 0; i < 3; i++) {
    const response = await ask(pool, url, `nobody-${i}`);
    assert.strictEqual(response.status, 404);
    assert.strictEqual((await response.json()).error.message, 'session not found');
  }
  assert.strictEqual(pool.made, 1);
  await pool.close();

  const others = pooled();
  const stale = new StreamableHTTPClientTransport(new URL('/mcp', url), {
    sessionId: 'nobody',
    fetch: (target, init) => fetch(target, { ...init, dispatcher: others }),
  });
  await stale.start();
  await assert.rejects(stale.send({ jsonrpc: '2.0', id: 1, method: 'ping' }), { code: 404 });
  await stale.close();
  const { client, count } = await connected(others, url);
  assert.strictEqual((await count()).count, 1);
  await client.close();
  await others.close();
});

served('the clients of a killed worker get 404 and recover; the others notice nothing', MCP, async (sidetrack) => {
  const pool = pooled();
  const clients = await all(12, async () => {
    const session = await connected(pool, sidetrack.url);
    return { ...session, pid: (await session.count()).pid };
  });
  const victim = clients[0].pid;
  const struck = clients.filter(({ pid }) => pid === victim);
  const spared = clients.filter(({ pid }) => pid !== victim);
  assert.ok(spared.length > 0);
  await sidetrack.replace(victim);

  await Promise.all(spared.map(async ({ count, pid }) => assert.deepStrictEqual(await count(), { count: 2, pid })));
  await Promise.all(struck.map(async ({ client, count }) => {
    await assert.rejects(count(), { code: 404 });
    await client.close();
    const anew = await connected(pool, sidetrack.url);
    const { pid } = await anew.count();
    assert.notStrictEqual(pid, victim);
    assert.deepStrictEqual(await anew.count(), { count: 2, pid });
    await anew.client.close();
  }));
  for (const { client } of spared) await client.close();
  await pool.close();
});
