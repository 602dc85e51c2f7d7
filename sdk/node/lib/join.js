// Asks a sidetrack to be taken in, as `sidetrack join` does.
'use strict';

const net = require('net');

const LONGEST = 4096; // bytes of an answer
const PATIENCE = 10_000;
const NEWLINE = '\n'.charCodeAt();

/**
 * Resolves once sidetrack has said yes: to its `answer`, and to `take()`, which returns the socket's
 * descriptor, from which not a byte more was read, or `close()`. Rejects in all other cases; `refused` tells that sidetrack itself has said no.
 */
exports.join = (path, slot) => new Promise((resolve, reject) => {
  const line = [];
  // What follows the answer is for the channel, and may bring descriptors: one byte at a time.
  const onread = { buffer: Buffer.alloc(1), callback: (_, [byte]) => byte === NEWLINE ? answered() : more(byte) };
  const socket = net.connect({ path, onread });
  socket.setTimeout(PATIENCE, () => socket.destroy(new Error('sidetrack does not answer')));
  socket.on('error', reject);
  socket.on('close', () => reject(new Error('sidetrack has closed the connection')));
  socket.write(`${JSON.stringify({ type: 'sidetrack:join', slot, pid: process.pid })}\n`);

  function more(byte) {
    if (line.push(byte) > LONGEST) socket.destroy(new Error("sidetrack's answer does not end"));
    return !socket.destroyed;
  }

  function answered() {
    let answer;
    try {
      answer = JSON.parse(Buffer.from(line).toString());
    } catch (error) {
      socket.destroy(error);
      return false;
    }
    if (answer?.type !== 'sidetrack:joined') {
      const refused = answer?.type === 'sidetrack:refused';
      socket.destroy(Object.assign(new Error(refused ? answer.reason : 'not a sidetrack'), { refused }));
      return false;
    }
    resolve({ answer, take: () => release(socket), close: () => socket.destroy() });
    return false;
  }
});

/**
 * The descriptor of a socket that is nobody's any more. Node can copy no descriptor and no handle can
 * let go of its own: this handle stays, idle and never closed, since closing it would close the
 * descriptor, or another that has got the same number.
 */
function release(socket) {
  const handle = socket._handle;
  handle.readStop();
  handle.reading = false;
  handle.unref();
  socket.setTimeout(0);
  socket.removeAllListeners();
  socket._handle = null;
  return handle.fd;
}
