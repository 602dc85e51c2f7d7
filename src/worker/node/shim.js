// sidetrack's shim for Node.js workers, preloaded with `NODE_OPTIONS=--require`.
//
// sidetrack plays the cluster primary over Node's own channel, so a worker needs no code of ours to
// be served. The shim adds what that channel does not carry: which sessions live here, which
// sockets have closed, and what shall happen when the channel ends.
//
// Every program that inherits NODE_OPTIONS runs it, so it does nothing outside a worker and prints
// nothing. It patches two functions only: `Module._load`, to find engine.io, and engine.io's
// `handshake`; everything else it learns from public events.
'use strict';

const path = require('path');

// In a worker's thread, or in its children, there is nothing to do.
if (process.env.SIDETRACK_SLOT !== undefined && process.connected && require('worker_threads').isMainThread) {
  leaveNoTraceInTheEnvironment();
  if (require('cluster').isWorker) {
    shim();
  } else if (process.env.WATCH_REPORT_DEPENDENCIES) {
    // `node --watch` keeps the channel and preloads nothing itself, but passes on what its child says.
    process.send({ type: 'sidetrack:wrapper', name: 'node --watch' }, undefined, undefined, () => {});
  }
}

// Children of the worker are no workers. SIDETRACK_SLOT stays: a program may want to know it.
function leaveNoTraceInTheEnvironment() {
  const isThisFile = (file) => {
    try {
      return require.resolve(path.resolve(file)) === __filename;
    } catch {
      return false;
    }
  };
  const options = (process.env.NODE_OPTIONS ?? '')
    .replace(/(?:^|\s+)(?:--require|-r)(?:=|\s+)("(?:[^"\\]|\\.)*"|\S+)/g, (option, file) =>
      isThisFile(file[0] === '"' ? file.slice(1, -1).replace(/\\(.)/g, '$1') : file) ? '' : option)
    .trim();
  if (options) process.env.NODE_OPTIONS = options;
  else delete process.env.NODE_OPTIONS;
}

function shim() {
  const Module = require('module');
  const net = require('net');
  const { worker } = require('cluster');
  const diagnostics = require('diagnostics_channel');

  // A program may wrap process.send; ours goes past its wrapper. The callback keeps Node from
  // emitting an 'error' for a message that cannot be sent.
  const send = process.send;
  const tell = (message, written = () => {}) => send.call(process, message, undefined, undefined, written);

  // Exported because a diagnostics channel that nobody holds is collected, with its subscribers.
  const accepted = diagnostics.channel('net.server.socket');
  const requests = diagnostics.channel('http.server.request.start');
  module.exports = { accepted, requests };

  tell({ type: 'sidetrack:hello', shim: 1, node: process.version, main: process.argv[1] });

  // `npm start` and its like run the server as a child of theirs and keep the channel to themselves.
  const program = path.basename(process.argv[1]).replace(/\.[cm]?js$/, '');
  const wrapper = /^(npm|npx|pnpm|pnpx|yarn|corepack|nodemon|pm2|tsx|ts-node-dev|node-dev|concurrently|cross-env|env-cmd|npm-run-all|run-[sp])(?:-cli|-runtime|-shell|-\d[\d.]*)?$/
    .exec(program);
  if (wrapper) tell({ type: 'sidetrack:wrapper', name: wrapper[1] });

  // --- Sockets -----------------------------------------------------------------------------------

  let live = 0;
  let closed = 0;

  // Counted in bursts: one message for all sockets that close within a few milliseconds.
  function reportClosed() {
    const count = closed;
    closed = 0;
    tell({ type: 'sidetrack:sockets-closed', count });
  }

  function onClose() {
    live--;
    if (closed++ === 0) setTimeout(reportClosed, 10).unref();
    leaveWhenIdle();
  }

  function follow(socket) {
    live++;
    socket.on('close', onClose);
  }

  // Sockets sent as messages (@socket.io/sticky and the like). First in line, so that a listener
  // that closes the socket or throws does not keep it from being counted.
  process.prependListener('message', (message, socket) => {
    if (!(socket instanceof net.Socket)) return;
    process.nextTick(enforceTimeouts, socket);
    if (message && message.sidetrack === 'probe') setTimeout(dropUntaken, 2000, socket).unref();
    else follow(socket);
  });

  // Sockets for a listening server. The cluster module handles the message within the same call, so
  // a server's new socket between our two listeners is the one that was handed over; a server that
  // accepts by itself (`exclusive: true`) does so elsewhere.
  let arriving = false;
  process.prependListener('internalMessage', (message) => {
    arriving = message.cmd === 'NODE_CLUSTER' && message.act === 'newconn';
  });
  process.on('internalMessage', () => {
    arriving = false;
  });
  accepted.subscribe(({ socket }) => {
    if (arriving) follow(socket);
    arriving = false;
  });

  // sidetrack asks with a socket of its own whether anyone takes sockets from messages. Where only,
  // say, an adapter listens, nobody would ever close it.
  function dropUntaken(socket) {
    if (socket.listenerCount('data') === 0 && socket.listenerCount('readable') === 0) socket.destroy();
  }

  // A http.Server enforces headersTimeout and requestTimeout from 'listening' on, which never comes
  // for servers that are given their sockets. Node's own listener is called rather than the event
  // emitted: the program's listeners would be told something untrue.
  const timed = new WeakSet();
  function enforceTimeouts({ server }) {
    if (!server || timed.has(server) || typeof server.listeners !== 'function') return;
    timed.add(server);
    if (server.listening) return;
    const begin = server.listeners('listening').find((listener) => listener.name === 'setupConnectionsTracking');
    if (begin) begin.call(server);
  }

  // --- The program's message listeners -----------------------------------------------------------

  // A message that comes before the program listens is lost: for cluster workers Node does not
  // queue. From the first listener on, probing makes sense.
  const emitters = [process, worker];
  const onNewListener = (event) => {
    if (event !== 'message') return;
    for (const emitter of emitters) emitter.removeListener('newListener', onNewListener);
    tell({ type: 'sidetrack:listens' });
  };
  for (const emitter of emitters) emitter.on('newListener', onNewListener);

  // --- The end of the channel --------------------------------------------------------------------

  // When its primary is gone, Node ends a worker at once, with all its connections. A worker that
  // serves some stays until they have ended, unless the program's own timers would keep it forever.
  let patience = 0;
  process.prependListener('disconnect', () => {
    // A planned disconnect may be followed by a program's longer goodbyes.
    patience = worker.exitedAfterDisconnect ? 5000 : 1000;
    if (live > 0) worker.exitedAfterDisconnect = true;
    leaveWhenIdle();
  });

  function leaveWhenIdle() {
    if (patience && live === 0) setTimeout(() => live === 0 && process.exit(), patience).unref();
  }

  // What the program sends from then on fails. Node reports that as an 'error' of the process,
  // which the cluster module passes on to the worker object, where it would be fatal.
  // ECONNRESET: sidetrack ended with messages of ours unread.
  const CHANNEL_ENDED = new Set(['EPIPE', 'ECONNRESET', 'ERR_IPC_CHANNEL_CLOSED', 'ERR_IPC_DISCONNECTED']);
  worker.on('error', (error) => {
    if (error && CHANNEL_ENDED.has(error.code)) return;
    if (worker.listenerCount('error') === 1) throw error;
  });

  // --- Sessions ----------------------------------------------------------------------------------

  const announced = new WeakSet(); // requests whose session was announced

  // engine.io however it is loaded: required, imported (its ESM entry wraps the CommonJS one), by a
  // name or a path, one copy or several.
  const load = Module._load;
  Module._load = function (request) {
    const exports = load.apply(this, arguments);
    if (typeof request === 'string' && request.includes('engine.io')) followSessions(exports);
    return exports;
  };

  const followed = new WeakSet();
  function followSessions(exports) {
    let prototype = exports && exports.Server && exports.Server.prototype;
    while (prototype && !Object.hasOwn(prototype, 'handshake')) prototype = Object.getPrototypeOf(prototype);
    if (!prototype || followed.has(prototype) || typeof prototype.handshake !== 'function') return;
    followed.add(prototype);

    const handshake = prototype.handshake;
    const awaitsId = handshake.constructor.name === 'AsyncFunction';
    prototype.handshake = function (transport, request) {
      let sid;
      // The program may override generateId at any time, anywhere in the chain, and may use it
      // itself: so it is wrapped just for this call, in which handshake calls it before it awaits.
      const own = Object.getOwnPropertyDescriptor(this, 'generateId');
      const generateId = this.generateId;
      const born = (id) => {
        sid = String(id);
        announced.add(request);
        return new Promise((written) => tell({ type: 'sidetrack:opened', sid }, written));
      };
      const reporting = function () {
        const id = generateId.apply(this, arguments);
        const later = id && typeof id.then === 'function';
        // engine.io misses the frames of a WebSocket that come while its handshake waits: the
        // program's own answer is returned, so that it waits no longer than without us. No later
        // request has to find such a session. (engine.io before 4 waits for nothing.)
        if (transport === 'websocket' || !awaitsId) {
          if (later) id.then(born, () => {});
          else born(id);
          return id;
        }
        // For polling, the response cannot leave before the announcement has: `written` is called
        // once it is in the channel, also when that was full.
        return Promise.resolve(id).then((id) => born(id).then(() => id));
      };
      Object.defineProperty(this, 'generateId', { value: reporting, configurable: true, writable: true });
      let result;
      try {
        result = handshake.apply(this, arguments);
      } finally {
        if (own) Object.defineProperty(this, 'generateId', own);
        else delete this.generateId;
      }
      const settled = () => {
        if (sid === undefined) return;
        const ended = () => tell({ type: 'sidetrack:closed', sid });
        if (Object.hasOwn(this.clients, sid)) this.clients[sid].once('close', ended);
        else ended();
      };
      // `finally` passes a rejection on: it stays as unhandled as it was.
      if (result && typeof result.finally === 'function') result.finally(settled);
      else settled();
      return result;
    };
  }

  // A bundled server has its engine.io inside. The handshake's response tells the id as well, for
  // polling, the one transport whose further requests need it. Such a session's end is not seen,
  // and `ends: false` says so.
  requests.subscribe(({ request, response }) => {
    if (!/[?&]EIO=/.test(request.url) || /[?&]sid=/.test(request.url)) return;
    const end = response.end;
    response.end = function (chunk) {
      // `0{"sid":"…`; in revision 3 after a length, with JSONP inside a string.
      const open = typeof chunk === 'string' && /^[^{]{0,24}0\{\\?"sid\\?":\\?"([^"\\]+)/.exec(chunk);
      if (open && !announced.has(request)) tell({ type: 'sidetrack:opened', sid: open[1], ends: false });
      return end.apply(this, arguments);
    };
  });
}
