// SockJS's own client against its own server: the client makes up the session id, the third segment
// of the path.
'use strict';

const assert = require('node:assert');
const SockJS = require('sockjs-client');
const { all, served } = require('./sidetrack');

const SOCKJS = { example: 'sockjs', key: 'path:3' };
const SESSIONS = 20;
const MESSAGES = 8;

for (const transport of ['xhr-streaming', 'xhr-polling', 'websocket']) {
  served(`${SESSIONS} sessions at once over ${transport}, none of which ever moves`, SOCKJS, async ({ url }) => {
    const conversations = await all(SESSIONS, (i) => conversation(url, transport, i));
    for (const { used } of conversations) assert.strictEqual(used, transport);
    assert.ok(new Set(conversations.map(({ pid }) => pid)).size > 1, 'several workers have sessions');
    return (figures) => {
      // The client of a WebSocket makes a connection for it alone; the others share some.
      if (transport !== 'websocket') assert.ok(figures.handed_back > 0, JSON.stringify(figures));
    };
  });
}

/** Says some things one by one, hears them again, and leaves. */
function conversation(url, transport, i) {
  return new Promise((resolve, reject) => {
    const socket = new SockJS(`${url}/echo`, null, { transports: [transport] });
    const said = [];
    let pid, used;
    const say = () => {
      said.push(`${i}: ${said.length}`);
      socket.send(said.at(-1));
    };
    socket.onopen = () => (used = socket.transport);
    socket.onmessage = ({ data }) => {
      if (pid === undefined) pid = Number(/^process (\d+)$/.exec(data)[1]);
      else if (data !== said.at(-1)) return reject(new Error(`${data} instead of ${said.at(-1)}`));
      if (said.length < MESSAGES) say();
      else socket.close();
    };
    socket.onclose = ({ code, reason }) => {
      if (code === 1000 && said.length === MESSAGES) resolve({ pid, used });
      else reject(new Error(`closed after ${said.length} messages: ${code} ${reason}`));
    };
  });
}
