// The client sockets sidetrack has sent: how each came, what was read of it before, and its end.
'use strict';

const net = require('net');
const diagnostics = require('diagnostics_channel');

const { isIPv6 } = net;

// Held because a diagnostics channel that nobody holds is collected, with its subscribers.
const accepted = diagnostics.channel('net.server.socket');

// On the socket itself: a WeakMap of all costs the garbage collector a look at each.
const ARRIVAL = Symbol('sidetrack.arrival');

exports.follow = function ({ tell, events }) {
  const idle = [];
  let live = 0;
  let closed = 0;
  let sidetrack = 0; // one after another: each counts the sockets it has sent itself

  events.on('back', () => {
    sidetrack++;
    closed = 0;
  });

  // Counted in bursts: one message for all sockets that close within a few milliseconds.
  function reportClosed() {
    const count = closed;
    closed = 0;
    if (count > 0) tell({ type: 'sidetrack:sockets-closed', count });
  }

  function onClose() {
    live--;
    if (this[ARRIVAL].from === sidetrack && closed++ === 0) setTimeout(reportClosed, 10).unref();
    if (live === 0) for (const listener of idle) listener();
  }

  function arrive(socket, { key, sidetrack: more }) {
    const { data, final, peer } = more ?? {};
    if (peer) announce(socket._handle, peer);
    // `last`: what is known of the last request, for `http.js`.
    const last = { find: undefined, ended: 0, url: undefined, sid: undefined };
    socket[ARRIVAL] = { key, final: final === true, peer, from: sidetrack, last };
    live++;
    socket.on('close', onClose);
    // What a worker before us has read comes first. Nothing has been read here yet: that takes a
    // turn of the event loop, and the socket has only just been made.
    if (data) socket.unshift(Buffer.from(data, 'base64'));
  }

  // A proxy has told sidetrack who the client is. Node asks the handle for `socket.remoteAddress` and the
  // like, and keeps the answer.
  function announce(handle, [address, port]) {
    if (!handle) return;
    handle.getpeername = (out) => {
      Object.assign(out, { address, port, family: isIPv6(address) ? 'IPv6' : 'IPv4' });
      return 0;
    };
  }

  // Sockets sent as messages (@socket.io/sticky and the like). First in line, so that a listener
  // that closes the socket or throws does not keep it from being counted.
  process.prependListener('message', (message, socket) => {
    if (!(socket instanceof net.Socket)) return;
    if (message?.sidetrack === 'probe') {
      setTimeout(dropUntaken, 2000, socket).unref();
      socket.on('close', () => socket.bytesWritten > 0 && events.emit('probed'));
    } else arrive(socket, { sidetrack: message?.sidetrack });
  });

  // A program that knows only its own messages may throw at one that it does not know: the question is not
  // worth its life.
  const { emit } = process;
  process.emit = function (event, message) {
    if (event !== 'message' || message?.sidetrack !== 'probe') return Reflect.apply(emit, this, arguments);
    try {
      return Reflect.apply(emit, this, arguments);
    } catch {
      return true;
    }
  };

  // sidetrack asks with a socket of its own whether anyone takes sockets from messages. Where only,
  // say, an adapter listens, nobody would ever close it.
  function dropUntaken(socket) {
    if (socket.listenerCount('data') === 0 && socket.listenerCount('readable') === 0) socket.destroy();
  }

  // Sockets for a listening server. The cluster module handles the message within the same call, so
  // a server's new socket between our two listeners is the one that was handed over; a server that
  // accepts by itself (`exclusive: true`) does so elsewhere.
  let arriving = null;
  process.prependListener('internalMessage', (message, handle) => {
    arriving = message.cmd === 'NODE_CLUSTER' && message.act === 'newconn' ? message : null;
    // Now, since a net.Server's own listeners see the socket before we do.
    if (arriving?.sidetrack?.peer) announce(handle, arriving.sidetrack.peer);
  });
  process.on('internalMessage', () => {
    arriving = null;
  });
  // The servers of `http` ask before; for all others this comes after their 'connection' listeners.
  accepted.subscribe(({ socket }) => arrivalOf(socket));

  /** How a socket came: `{ key, final, peer }`, or undefined when sidetrack has not sent it. */
  function arrivalOf(socket) {
    if (arriving && !socket[ARRIVAL]) arrive(socket, arriving);
    arriving = null;
    return socket[ARRIVAL];
  }

  return { arrivalOf, live: () => live, onIdle: (listener) => idle.push(listener) };
};
