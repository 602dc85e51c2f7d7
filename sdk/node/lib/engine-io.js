// Sessions of Engine.IO, and so of Socket.IO: announced at birth, before the client can know.
//
// `Module._load` is patched to find engine.io, and engine.io's `handshake` to hear of sessions.
'use strict';

const Module = require('module');
const { tagged } = require('./terms');

/**
 * `terms` may change at any time: another sidetrack may have others. The function returned wants to be
 * told of every request with its response.
 */
exports.watch = function (sessions, terms) {
  const announced = new WeakSet(); // requests whose session was announced

  // engine.io however it is loaded: required, imported (its ESM entry wraps the CommonJS one), by a
  // name or a path, one copy or several, before us or after.
  for (const [file, { exports }] of Object.entries(require.cache)) if (file.includes('engine.io')) followSessions(exports);
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
        return sessions.open(sid);
      };
      // Where sidetrack looks elsewhere for ids, these are none of its concern.
      const mark = (id) => (terms.find.kind === 'query' ? tagged(terms.tag, id) : id);
      const reporting = function () {
        const own = generateId.apply(this, arguments);
        const later = own && typeof own.then === 'function';
        const id = later ? Promise.resolve(own).then(mark) : mark(own);
        // engine.io misses the frames of a WebSocket that come while its handshake waits: so it
        // waits no longer than the program's own answer takes. No later
        // request has to find such a session. (engine.io before 4 waits for nothing.)
        if (transport === 'websocket' || !awaitsId) {
          if (later) id.then(born, () => {});
          else born(id);
          return id;
        }
        // For polling, the response cannot leave before the announcement has: `born` resolves once
        // it is in the channel, also when that was full.
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
        const ended = () => sessions.close(sid);
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
  return (request, response) => {
    const { url } = request;
    if (!url.includes('EIO=') || !/[?&]EIO=/.test(url) || /[?&]sid=/.test(url)) return;
    const end = response.end;
    response.end = function (chunk) {
      // `0{"sid":"…`; in revision 3 after a length, with JSONP inside a string.
      const open = typeof chunk === 'string' && /^[^{]{0,24}0\{\\?"sid\\?":\\?"([^"\\]+)/.exec(chunk);
      if (open && !announced.has(request)) sessions.open(open[1], { ends: false });
      return end.apply(this, arguments);
    };
  };
};
