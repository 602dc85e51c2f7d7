// The shim: what Node's own channel does not carry, added to a worker. sidetrack plays the cluster
// primary over that channel, so a program needs no code of ours to be served; the shim says which
// sessions live here, which sockets have closed, hands back connections whose next request is
// another worker's, and decides what happens when the channel ends.
//
// Two copies may meet in a process: the preloaded one and a program's dependency. The first wins.
'use strict';

const STARTED = Symbol.for('sidetrack.worker');

module.exports = process[STARTED] ?? start();

function start() {
  const { SIDETRACK_SLOT, SIDETRACK_SESSION_KEY: key, SIDETRACK_KEEPALIVE: keepAlive, SIDETRACK_JOIN: socket } = process.env;
  const active = SIDETRACK_SLOT !== undefined && Boolean(process.connected) &&
    require('worker_threads').isMainThread && require('cluster').isWorker;
  let slot = active ? SIDETRACK_SLOT : undefined;
  if (active && socket) require('./adopt'); // it looks at the channel before anybody else
  // Elsewhere all sessions are this process's own, and nobody wants to hear of them.
  const channel = active ? require('./channel').open() : { tell: (message, written = () => {}) => written() };
  const sessions = require('./sessions').create({ tell: channel.tell });
  const api = {
    active,
    get slot() {
      return slot;
    },
    sessions: {
      open: (sid, options) => sessions.open(String(sid), options),
      close: (sid) => sessions.close(String(sid)),
      own: (sid) => sessions.own(String(sid)),
    },
  };
  Object.defineProperty(process, STARTED, { value: api });
  if (!active) return api;

  const terms = {};
  follow({ session_key: key, keepalive: keepAlive });
  function follow({ session_key: key, keepalive: keepAlive }) {
    terms.find = require('./key').finder(key || 'query:sid');
    terms.keepAlive = keepAlive || 'hand-back';
  }

  const sockets = require('./sockets').follow(channel);
  require('./farewell').prepare(sockets);
  const handBack = require('./hand-back').create(channel);
  require('./http').watch({ terms, channel, sessions, sockets, handBack });
  require('./engine-io').watch(sessions);
  require('./responses').watch({ terms, sessions });
  if (socket && !channel.wrapper) joinAgain();
  channel.reportListening(); // the program's: ours are in place
  return api;

  function joinAgain() {
    const servers = require('./servers').follow(channel);
    // Its sessions are known before any request can come for them.
    channel.events.on('back', () => {
      sessions.repeat();
      channel.tellListening();
      servers.repeat();
    });
    const accept = (answer) => {
      follow(answer);
      process.env.SIDETRACK_SLOT = slot = answer.slot;
    };
    require('./rejoin').prepare({ socket, slot, channel, accept });
  }
}
