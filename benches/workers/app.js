// What every worker of a comparison serves, whoever is in front of it: as little as possible, so that
// the measurement shows who is in front.
'use strict';

// Any server has some data. With next to none V8's limit for the old generation, 8 MB, lies so near that
// the buffers of large requests reach it in some processes and not in others, by a few hundred KB of
// heap: a collection each time, up to a tenth of the server's time. Numbers cost a collection nothing.
exports.data = Array.from({ length: 2_000_000 }, Math.random);

exports.ioOptions = { maxHttpBufferSize: 4e6 };

exports.routes = (req, res) => {
  if (req.url.startsWith('/stall')) {
    // A body that nobody reads: whoever is in front must not read it either.
    return;
  }
  if (req.method === 'POST') {
    let bytes = 0;
    req.on('data', (chunk) => (bytes += chunk.length));
    req.on('end', () => res.end(String(bytes)));
  } else {
    res.end('ok');
  }
};

/** The pid in a header of every response of Engine.IO, and an event that answers. */
exports.events = (io) => {
  io.engine.on('headers', (headers) => (headers['X-Worker-Pid'] = String(process.pid)));
  io.on('connection', (socket) => socket.on('echo', (payload, answer) => answer(payload)));
};
