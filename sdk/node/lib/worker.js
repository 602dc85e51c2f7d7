// The shim: what Node's own channel does not carry, added to a worker. sidetrack plays the cluster
// primary over that channel, so a program needs no code of ours to be served; the shim says which
// sessions live here, which sockets have closed, hands back connections whose next request is
// another worker's, and decides what happens when the channel ends.
//
// Two copies may meet in a process: the preloaded one and a program's dependency. The first wins.
'use strict';

const { REPEAT_AFTER, create } = require('./sessions');
const { fromAnswer, fromEnv, tagged } = require('./terms');

const STARTED = Symbol.for('sidetrack.worker');

module.exports = process[STARTED] ?? start();

function start() {
  const { SIDETRACK_SLOT, SIDETRACK_JOIN: socket } = process.env;
  const cluster = require('cluster');
  const active = SIDETRACK_SLOT !== undefined && Boolean(process.connected) &&
    require('worker_threads').isMainThread && cluster.isWorker;
  if (active && !cluster.worker) joinTheCluster(cluster);
  let slot = active ? SIDETRACK_SLOT : undefined;
  if (active && socket) require('./adopt'); // it looks at the channel before anybody else
  // Elsewhere all sessions are this process's own, and nobody wants to hear of them.
  const channel = active ? require('./channel').open() : { tell: (message, written = () => {}) => written() };
  const sessions = create({ tell: channel.tell });
  const terms = {};
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
    tagged: (id) => tagged(terms.tag, id),
  };
  Object.defineProperty(process, STARTED, { value: api });
  if (!active) return api;

  require('./socket-options');
  setInterval(sessions.refresh, REPEAT_AFTER).unref();
  follow(fromEnv(process.env));
  function follow(next) {
    Object.assign(terms, next);
    sessions.remember(terms.forgetAfter);
  }

  const sockets = require('./sockets').follow(channel);
  require('./farewell').prepare(sockets);
  const handBack = require('./hand-back').create(channel);
  const responses = require('./responses').learn({ terms, sessions });
  const noticeHandshake = require('./engine-io').watch(sessions, terms);
  const answering = (request, response) => {
    noticeHandshake(request, response);
    responses.answering(request, response);
  };
  require('./http').watch({ terms, channel, sessions, sockets, begin: responses.begin, answering, handBack });
  if (socket && !channel.wrapper) joinAgain();
  channel.reportListening(); // the program's: ours are in place
  return api;

  function joinAgain() {
    // A request for a session that sidetrack does not know waits for a moment; one for a worker that
    // is not ready is refused. So sessions follow readiness at once. Where clients make the ids none
    // waits, and better refused than begun anew elsewhere.
    const sessionsFirst = () => terms.find.kind === 'path';
    const announce = (tellServers) => channel.announce(tellServers, sessions.repeat, sessionsFirst());
    const servers = require('./servers').follow({ tell: channel.tell, announce });

    // Readiness for messages is believed a moment after it was said, or a probe answered.
    let probed = false;
    let soon;
    const announceSoon = () => {
      soon = setTimeout(announce, 20, () => {}).unref();
    };
    channel.events.on('probed', () => {
      probed = true;
      announceSoon();
    });
    const tellReady = () => channel.tell({ type: 'sidetrack:ready', replays: true });

    channel.events.on('lost', () => clearTimeout(soon));
    channel.events.on('back', () => {
      if (!probed) channel.tellListening();
      else if (sessionsFirst()) announce(tellReady);
      else {
        tellReady();
        announceSoon();
      }
      servers.repeat();
    });
    const accept = (answer) => {
      follow(fromAnswer(answer));
      process.env.SIDETRACK_SLOT = slot = answer.slot;
    };
    require('./rejoin').prepare({ socket, slot, channel, accept });
  }
}

// Node does this by itself, but not for a program without a file, such as that of `node --eval`.
function joinTheCluster(cluster) {
  cluster._setupWorker();
  delete process.env.NODE_UNIQUE_ID;
}
