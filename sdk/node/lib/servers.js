// The program's listening servers, so that another sidetrack can be told of them. Node tells of each
// once, when it begins to listen.
'use strict';

const cluster = require('cluster');

exports.follow = function ({ tell }) {
  const servers = new Map(); // number of the query → { query, server, key: once answered }
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
    }
    return send.apply(this, arguments);
  };

  function forget(key) {
    for (const [seq, server] of servers) if (server.key === key) servers.delete(seq);
  }

  // Node itself deals with the first answer, and does not expect another.
  process.on('internalMessage', ({ cmd, ack, errno, key }) => {
    const found = cmd === 'NODE_CLUSTER' && servers.get(ack);
    if (!found) return;
    const { query, server } = found;
    if (found.key !== undefined) {
      if (!errno && server.listening) tell({ ...query, act: 'listening', port: server.address()?.port || query.port });
    } else if (errno) servers.delete(ack);
    else found.key = key;
  });

  /** Asks for all of them again, with the numbers they had: Node may still wait for an answer. */
  function repeat() {
    for (const [seq, { query, server, key }] of servers) {
      if (key !== undefined && !server.listening) servers.delete(seq);
      else tell(query);
    }
    for (const late of waiting.splice(0)) cluster._getServer(...late);
  }

  return { repeat };
};
