// SignalR's own client against the example's server, which announces its sessions itself: in time, so
// nothing is held.
'use strict';

const assert = require('node:assert');
const { HttpTransportType, HubConnectionBuilder, LogLevel } = require('@microsoft/signalr');
const { all, served } = require('./sidetrack');

const SIGNALR = { example: 'signalr', key: 'query:id', options: ['--hold', '0s'] };
const CLIENTS = 20;
const CALLS = 10;

const client = (url, transport) =>
  new HubConnectionBuilder().withUrl(`${url}/hub`, { transport: HttpTransportType[transport] }).configureLogging(LogLevel.None);

for (const transport of ['LongPolling', 'ServerSentEvents', 'WebSockets']) {
  served(`${CLIENTS} connections at once over ${transport}, each with one process`, SIGNALR, async ({ url }) => {
    const workers = new Set();
    const errors = [];
    await all(CLIENTS, async (i) => {
      const connection = client(url, transport).build();
      connection.onclose((error) => error && errors.push(error));
      await connection.start();
      const { connectionId } = connection;
      const { pid } = await connection.invoke('WhoAmI');
      workers.add(pid);
      for (let calls = 2; calls <= CALLS; calls++) {
        assert.strictEqual(await connection.invoke('Echo', `${i}: ${calls}`), `${i}: ${calls}`);
        assert.deepStrictEqual(await connection.invoke('WhoAmI'), { connectionId, pid, calls });
      }
      await assert.rejects(connection.invoke('Nothing'), /unknown method: Nothing/);
      await connection.stop();
    });
    assert.deepStrictEqual(errors, []);
    assert.ok(workers.size > 1, 'several workers have connections');
    return (figures) => {
      assert.strictEqual(figures.sessions_opened, CLIENTS);
      // The last may end only with its worker, which is told to stop as soon as the clients have.
      assert.strictEqual(figures.sessions_closed + figures.sessions_forgotten, CLIENTS);
      // The client of a WebSocket makes a connection for it alone; the others share some.
      if (transport !== 'WebSockets') assert.ok(figures.handed_back > 0, JSON.stringify(figures));
    };
  });
}

served('a client that skips the negotiation needs no session', SIGNALR, async ({ url }) => {
  const options = { skipNegotiation: true, transport: HttpTransportType.WebSockets };
  const connection = new HubConnectionBuilder().withUrl(`${url}/hub`, options).configureLogging(LogLevel.None).build();
  await connection.start();
  const { pid } = await connection.invoke('WhoAmI');
  assert.deepStrictEqual(await connection.invoke('WhoAmI'), { connectionId: null, pid, calls: 2 });
  await connection.stop();
  return (figures) => assert.strictEqual(figures.sessions_opened, 0);
});

served('the clients of a killed worker reconnect to another; the others notice nothing', SIGNALR, async (sidetrack) => {
  const connections = await all(12, async (i) => {
    const transport = ['LongPolling', 'ServerSentEvents', 'WebSockets'][i % 3];
    const connection = client(sidetrack.url, transport).withAutomaticReconnect([0, 100, 500, 1000, 2000]).build();
    const reconnected = new Promise((resolve) => connection.onreconnected(resolve));
    await connection.start();
    return { connection, reconnected, ...(await connection.invoke('WhoAmI')) };
  });
  const victim = connections[0].pid;
  assert.ok(connections.some(({ pid }) => pid !== victim), 'several workers have connections');
  await sidetrack.replace(victim);
  await Promise.all(connections.map(async ({ connection, reconnected, connectionId, pid }) => {
    if (pid === victim) assert.notStrictEqual(await reconnected, connectionId);
    const now = await connection.invoke('WhoAmI');
    if (pid === victim) assert.ok(now.calls === 1 && now.pid !== victim && now.connectionId !== connectionId);
    else assert.deepStrictEqual(now, { connectionId, pid, calls: 2 });
    await connection.stop();
  }));
});
