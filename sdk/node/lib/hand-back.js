// Hand-back: a connection whose next request belongs to another worker returns to sidetrack, with
// every byte that was read of it.
'use strict';

const { Detaching } = require('./detach');

exports.create = function ({ give, events }) {
  const leaving = new Set(); // what is not sent yet: { server, socket, arrival, bytes }

  // What still waits when the channel ends is never sent.
  events.on('end', () => {
    for (const connection of leaving) answerHere(connection);
  });
  // What is on its way when it is interrupted has gone with it.
  events.on('lost', () => {
    for (const connection of leaving) if (!connection.socket._handle) answerHere(connection);
  });

  function send(connection) {
    const { socket, arrival, bytes } = connection;
    const { key, peer } = arrival;
    const message = { type: 'sidetrack:hand-back', data: bytes.toString('base64'), key, peer };
    socket.setTimeout(0);
    // Without a server, Node keeps no list of sent sockets, for which server.close() would wait. The
    // server that counts the socket is another property, and counts down when it is destroyed.
    socket.server = null;
    leaving.add(connection);
    give(message, socket, (error) => {
      if (!leaving.has(connection)) return;
      if (error && socket._handle) return answerHere(connection);
      leaving.delete(connection);
      // Its descriptor is Node's by now, closed once acknowledged: nothing is shut down here.
      socket.destroy();
    });
  }

  // Nobody is there to find a better worker: as a connection that came with these bytes, for good.
  function answerHere(connection) {
    const { server, socket, arrival, bytes } = connection;
    leaving.delete(connection);
    if (!socket._handle || socket.destroyed) return void socket.destroy();
    arrival.final = true;
    delete socket.resume;
    socket.unshift(bytes);
    server.emit('connection', socket);
  }

  /**
   * For the parser's `onIncoming`: takes the connection from the server, right behind this head.
   * Returns what makes the parser stop there.
   */
  return function handBack(server, socket, arrival, request) {
    const detaching = new Detaching(server, socket, request);
    return detaching.begin((rest) => {
      // Before anything else, for as long as we read, bytes go missing for the next worker. And
      // whoever still wants to resume the socket (a slow reader of an earlier request, a worker that
      // has just replayed into it) must not.
      socket._handle?.readStop();
      if (socket._handle) socket._handle.reading = false;
      socket.resume = () => socket;
      detaching.whenAnswered((usable) => {
        if (!usable) {
          delete socket.resume;
          return;
        }
        const buffered = socket.read();
        const bytes = Buffer.concat(buffered ? [headOf(request), rest, buffered] : [headOf(request), rest]);
        send({ server, socket, arrival, bytes });
      });
    });
  };
};

/** The head as it came, but for white space around values. */
function headOf({ method, url, httpVersion, rawHeaders }) {
  let head = `${method} ${url} HTTP/${httpVersion}\r\n`;
  for (let i = 0; i < rawHeaders.length; i += 2) head += `${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`;
  return Buffer.from(`${head}\r\n`, 'latin1');
}
