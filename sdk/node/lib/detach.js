// Takes a connection from a http.Server between two requests, byte for byte.
//
// A parser whose `onIncoming` returns 2 for a request with `upgrade` set stops right behind the head,
// body or not. Node then gives its parser up and emits 'upgrade' (or 'connect') with the socket and
// the raw bytes behind the head, if anyone listens. For the rest of that one call, we do.
'use strict';

// What Node's server still needs to hear while earlier responses are being written.
const EVENTS = ['close', 'drain', 'error', 'timeout'];

exports.Detaching = class Detaching {
  constructor(server, socket, request) {
    this.server = server;
    this.socket = socket;
    this.request = request;
    this.listeners = EVENTS.map((event) => socket.rawListeners(event));
  }

  /** Calls `then` with the bytes behind the head, within the same turn. */
  begin(then) {
    const restore = override(this.server, {
      listenerCount: () => 1,
      emit: (event, request, socket, rest) => {
        restore();
        then(rest);
        return true;
      },
    });
    this.request.upgrade = true;
    return 2;
  }

  /**
   * Calls `then` once all earlier responses have been written: with true, or with false when the
   * connection has ended meanwhile or one of them ends it.
   */
  whenAnswered(then) {
    const { socket } = this;
    const removed = EVENTS.flatMap((event, i) => {
      const left = socket.rawListeners(event);
      return this.listeners[i].filter((listener) => !left.includes(listener)).map((listener) => [event, listener]);
    });
    for (const [event, listener] of removed) socket.on(event, listener);
    const done = (usable) => {
      socket.removeListener('close', gone);
      for (const [event, listener] of removed) if (usable || event === 'timeout') socket.removeListener(event, listener);
      // The client may leave at any time from now on.
      socket.on('error', () => {});
      then(usable);
    };
    const gone = () => done(false);
    const look = () => {
      const response = socket._httpMessage;
      // A response that could not be written has 'finished' as well, a moment before the socket ends.
      if (socket.destroyed || socket.errored || !socket._handle || socket.writableEnded) done(false);
      // Node's own listener comes first and puts the next response in place.
      else if (response) response.once('finish', look);
      else if (socket.writableLength > 0) socket.write('', look);
      else done(true);
    };
    socket.once('close', gone);
    look();
  }
};

/** Sets properties of an object; the function returned undoes that. */
function override(object, values) {
  const before = Object.keys(values).map((name) => [name, Object.getOwnPropertyDescriptor(object, name)]);
  for (const [name, value] of Object.entries(values)) {
    Object.defineProperty(object, name, { value, configurable: true, enumerable: false, writable: true });
  }
  return () => {
    for (const [name, descriptor] of before) {
      if (descriptor) Object.defineProperty(object, name, descriptor);
      else delete object[name];
    }
  };
}
