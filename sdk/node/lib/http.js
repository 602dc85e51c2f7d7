// The requests of every `http.Server`, seen before the program sees them.
//
// `emit` of http.Server is wrapped. Right after its 'connection' listeners have run, a socket has its
// HTTP parser, whose `onIncoming` is told of each request when its head is complete; and the events of a
// request bring its response. Both run for every request: they do little.
'use strict';

const http = require('http');
const net = require('net');

/**
 * `terms` may change at any time: another sidetrack may have others. `begin` is told of requests that
 * sidetrack knows no better worker for, `answering` of every request and its response.
 */
exports.watch = function ({ terms, channel, sessions, sockets, begin, answering, handBack }) {
  const known = new WeakSet();

  http.Server.prototype.emit = function emit(event, socket, second) {
    // Spelled out for 'request', which is emitted most.
    if (event === 'request' && arguments.length === 3) {
      answering(socket, second);
      return net.Server.prototype.emit.call(this, event, socket, second);
    }
    if (event === 'checkContinue' || event === 'checkExpectation') answering(socket, second);
    if (event === 'upgrade') keepInUse(socket, second);
    if (event !== 'connection') return net.Server.prototype.emit.apply(this, arguments);
    const arrival = sockets.arrivalOf(socket);
    if (!arrival) return net.Server.prototype.emit.apply(this, arguments);
    if (!known.has(this)) {
      known.add(this);
      prepare(this);
    }
    const heard = net.Server.prototype.emit.apply(this, arguments);
    if (socket.parser && typeof socket.parser.onIncoming === 'function') GUARDS[terms.keepAlive]?.(this, socket, arrival);
    return heard;
  };

  // A WebSocket is one long request.
  function keepInUse(request, socket) {
    const sid = terms.find(request);
    if (sid !== undefined) socket.once('close', sessions.use(sid));
  }

  function prepare(server) {
    enforceTimeouts(server);
    if (terms.keepAlive === 'hand-back') keepConnectionsOfSticky(server);
  }

  const GUARDS = {
    'hand-back'(server, socket, arrival) {
      const { parser } = socket;
      const { onIncoming } = parser;
      parser.onIncoming = function (request, keepAlive) {
        return isMisplaced(request, arrival, parser)
          ? handBack(server, socket, arrival, request)
          : onIncoming.call(this, request, keepAlive);
      };
    },
    close(server, { parser }, arrival) {
      const { onIncoming } = parser;
      parser.onIncoming = function (request) {
        claim(request, arrival);
        return onIncoming.call(this, request, false);
      };
    },
    worker(server, { parser }, arrival) {
      if (!arrival.final || terms.find.kind !== 'path') return;
      const { onIncoming } = parser;
      parser.onIncoming = function (request, keepAlive) {
        claim(request, arrival);
        return onIncoming.call(this, request, keepAlive);
      };
    },
  };

  function isMisplaced(request, arrival, { maxHeaderPairs }) {
    if (arrival.final) return claim(request, arrival);
    if (terms.isOwn && !terms.isOwn(request)) return canLeave(request, maxHeaderPairs);
    // Mostly the next request is of the same session, if not the same one. Looking that up again costs
    // more than all the rest of this.
    const { find } = terms;
    const { last } = arrival;
    const holds = last.find === find && last.ended === sessions.ended();
    if (holds && request.url === last.url) return false;
    const sid = find(request);
    if (holds && sid === last.sid) {
      last.url = urlTelling(request);
      return false;
    }
    if (sid === undefined || sessions.own(sid)) {
      // Of others each request counts as a use.
      if (sid === undefined || sessions.lasting(sid)) remember(last, request, sid);
      return false;
    }
    return canLeave(request, maxHeaderPairs);
  }

  // A head with more lines than the server takes has been cut, and cannot be handed on whole.
  function canLeave({ rawHeaders }, most) {
    return channel.usable() && (!(most > 0) || rawHeaders.length < most);
  }

  // True until a session ends, or another sidetrack looks elsewhere for sessions.
  function remember(last, request, sid) {
    last.find = terms.find;
    last.ended = sessions.ended();
    last.url = urlTelling(request);
    last.sid = sid;
  }

  const urlTelling = ({ url }) => (terms.find.kind === 'query' ? url : undefined);

  // The first request of a connection for which sidetrack knows no better worker: it stays. Its
  // session may begin here.
  function claim(request, arrival) {
    if (!arrival.final) return false;
    arrival.final = false;
    begin(request);
    return false;
  }
};

// A http.Server enforces headersTimeout and requestTimeout from 'listening' on, which never comes
// for servers that are given their sockets. Node's own listener is called rather than the event
// emitted: the program's listeners would be told something untrue.
function enforceTimeouts(server) {
  if (server.listening) return;
  const begin = server.listeners('listening').find((listener) => listener.name === 'setupConnectionsTracking');
  if (begin) begin.call(server);
}

// @socket.io/sticky 2.x closes every connection after one response, since a next request might be
// another worker's. Such a request is handed back. Its comment is what tells that listener from one
// of the program's own, which stays.
function keepConnectionsOfSticky(server) {
  for (const listener of server.listeners('request')) {
    const source = Function.prototype.toString.call(listener);
    if (source.includes('disable HTTP keep-alive to prevent connection reuse for another session')) {
      server.removeListener('request', listener);
    }
  }
}
