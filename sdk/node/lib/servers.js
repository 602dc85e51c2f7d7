// The program's listening servers, so that another sidetrack can be told of them. Node tells of each
// once, when it begins to listen.
'use strict';

const cluster = require('cluster');

/** `announce(tell)` calls `tell`, which says which servers listen, at once. */
exports.follow = function ({ tell, announce }) {
  const servers = new Map(); // number of the query → { query, server, key: once answered }
  const asked = new Set(); // numbers that were sent again
  const agreed = []; // what may be said once all of them are answered
  const waiting = []; // what listens while there is no channel

  let asking;
  const { _getServer } = cluster;
  cluster._getServer = function (server) {
    // Node would forget it.
    if (!process.connected) return void waiting.push(arguments);
    asking = server;
    try {
      return _getServer.apply(this, arguments);
    } finally {
      asking = undefined;
    }
  };

  const { send } = process;
  process.send = function (message) {
    if (message?.cmd === 'NODE_CLUSTER') {
      const { act, seq, key } = message;
      if (act === 'queryServer') servers.set(seq, { query: message, server: asking });
      else if (act === 'close') forget(key);
      else if (act === 'listening') {
        let sent;
        announce(() => {
          sent = send.apply(this, arguments);
        });
        return sent;
      }
    }
    return send.apply(this, arguments);
  };

  function forget(key) {
    for (const [seq, server] of servers) if (server.key === key) servers.delete(seq);
  }

  // Node itself deals with the first answer, says that it listens, and expects no other.
  process.on('internalMessage', ({ cmd, ack, errno, key }) => {
    const found = cmd === 'NODE_CLUSTER' && servers.get(ack);
    if (!found) return;
    if (asked.delete(ack)) {
      const { query, server } = found;
      if (!errno && server.listening) agreed.push({ ...query, act: 'listening', port: server.address()?.port || query.port });
      if (asked.size === 0) announce(() => agreed.splice(0).forEach((message) => tell(message)));
    } else if (errno) servers.delete(ack);
    else found.key = key;
  });

  /** Asks for all of them again, with the numbers they had: Node may still wait for an answer. */
  function repeat() {
    asked.clear();
    agreed.length = 0;
    for (const [seq, { query, server, key }] of servers) {
      if (key !== undefined && !server.listening) {
        servers.delete(seq);
        continue;
      }
      if (key !== undefined) asked.add(seq);
      tell(query);
    }
    for (const late of waiting.splice(0)) cluster._getServer(...late);
  }

  return { repeat };
};
