// The shim: what Node's own channel does not carry, added to a worker. sidetrack plays the cluster
// primary over that channel, so a program needs no code of ours to be served; the shim says which
// sessions live here, which sockets have closed, hands back connections whose next request is
// another worker's, and decides what happens when the channel ends.
//
// Two copies may meet in a process: the preloaded one and a program's dependency. The first wins.
'use strict';

const { REPEAT_AFTER, create } = require('./sessions');

const STARTED = Symbol.for('sidetrack.worker');

module.exports = process[STARTED] ?? start();

function start() {
  const { SIDETRACK_SLOT: slot, SIDETRACK_SESSION_KEY: key, SIDETRACK_KEEPALIVE: keepAlive } = process.env;
  const active = slot !== undefined && Boolean(process.connected) &&
    require('worker_threads').isMainThread && require('cluster').isWorker;
  // Elsewhere all sessions are this process's own, and nobody wants to hear of them.
  const channel = active ? require('./channel').open() : { tell: (message, written = () => {}) => written() };
  const sessions = create({ tell: channel.tell });
  const api = {
    active,
    slot: active ? slot : undefined,
    sessions: {
      open: (sid, options) => sessions.open(String(sid), options),
      close: (sid) => sessions.close(String(sid)),
      own: (sid) => sessions.own(String(sid)),
    },
  };
  Object.defineProperty(process, STARTED, { value: api });
  if (!active) return api;

  setInterval(sessions.repeat, REPEAT_AFTER).unref();
  const find = require('./key').finder(key || 'query:sid');
  const sockets = require('./sockets').follow(channel);
  require('./farewell').prepare(sockets);
  const handBack = require('./hand-back').create(channel);
  const begin = require('./responses').watch({ find, sessions });
  require('./http').watch({ find, sessions, sockets, begin, handBack, keepAlive: keepAlive || 'hand-back' });
  require('./engine-io').watch(sessions);
  channel.reportListening(); // the program's: ours are in place
  return api;
}
