// A worker with the shim under a real cluster primary: Node's own, of this process.
'use strict';

const cluster = require('node:cluster');
const net = require('node:net');
const path = require('node:path');
const { once } = require('node:events');
const { SHIM, eventually } = require('./primary');

const WORKERS = path.join(__dirname, 'workers');

/** Starts a worker of this process with the shim, and ends it with the test. */
exports.start = function (t, file, { env = {}, execArgv = [] } = {}) {
  cluster.setupPrimary({ exec: path.resolve(WORKERS, file), execArgv, silent: true });
  const worker = cluster.fork({ PORT: 0, SIDETRACK_SLOT: 'w0', NODE_OPTIONS: `--require "${SHIM}"`, ...env });
  const messages = [];
  let output = '';
  let front;
  worker.on('error', () => {}); // a write to a worker that has just ended
  worker.on('message', (message) => messages.push(message));
  for (const stream of [worker.process.stdout, worker.process.stderr]) stream.on('data', (data) => (output += data));
  const exited = once(worker.process, 'exit').then(([code, signal]) => signal ?? code);
  const listening = once(worker, 'listening').then(([address]) => new URL(`http://127.0.0.1:${address.port}`), () => {});
  t.after(async () => {
    front?.close();
    worker.process.kill('SIGKILL');
    await exited;
  });
  return {
    worker,
    messages,
    exited,
    output: () => output,
    of: (type) => messages.filter((message) => message.type === `sidetrack:${type}`),
    sids: (type) => messages.filter((message) => message.type === `sidetrack:${type}`).map((message) => message.sid),
    closedSockets: () => messages.reduce((sum, message) => sum + (message.type === 'sidetrack:sockets-closed' ? message.count : 0), 0),
    message: (type) => eventually(`sidetrack:${type}`, () => messages.find((message) => message.type === `sidetrack:${type}`)),
    /** Where to connect: to the listening worker, or to a listener that sends it its sockets. */
    async url() {
      const fed = this.message('listens').then(async () => {
        front = net.createServer({ pauseOnConnect: true }, (socket) => worker.send({ type: 'sticky:connection', data: '' }, socket, () => {}));
        await once(front.listen(0), 'listening');
        return new URL(`http://127.0.0.1:${front.address().port}`);
      });
      fed.catch(() => {});
      return Promise.race([listening, fed]);
    },
  };
};

/** A Socket.IO server, to be followed by what it does besides. */
exports.SERVER = `
  const { Server } = require('socket.io');
  const server = require('http').createServer();
  const io = new Server(server);
  server.listen(process.env.PORT);
`;

exports.text = { 'Content-Type': 'text/plain;charset=UTF-8' };
exports.sessionPath = (sid) => `/socket.io/?EIO=4&transport=polling&sid=${sid}`;
