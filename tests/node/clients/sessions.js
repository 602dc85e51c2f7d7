// N Socket.IO clients at once, each with several echo round trips. Does a session ever fail or move?
//   sessions.js URL [--n 50] [--transport polling|websocket|upgrade] [--rounds 5] [--big] [--path /socket.io/]
'use strict';

const crypto = require('node:crypto');
const { io } = require('socket.io-client');
const { start, count, sleep } = require('./lib');

const { url, options, result, finish } = start({ n: 50, transport: 'polling', rounds: 5, big: false, path: '/socket.io/' });
const TRANSPORTS = { polling: ['polling'], websocket: ['websocket'], upgrade: ['polling', 'websocket'] };
const BIG = 1_000_000;
Object.assign(result, { transport: options.transport, n: options.n, connected: 0, echoes: 0, failures: 0, moved: 0, errors: {}, pids: {} });

const once = (emitter, event, ms) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error(`no ${event} in ${ms} ms`)), ms);
  emitter.once(event, (value) => {
    clearTimeout(timer);
    resolve(value);
  });
});

async function echo(socket, payload) {
  const back = await socket.timeout(30000).emitWithAck('echo', payload);
  const same = Buffer.isBuffer(payload) ? payload.equals(Buffer.from(back)) : back === payload;
  if (!same) throw new Error('echo differs');
  result.echoes++;
}

async function client(i) {
  const socket = io(url.href, {
    path: options.path, transports: TRANSPORTS[options.transport], forceNew: true, reconnection: false, timeout: 60000,
  });
  const pids = new Set();
  let lost;
  try {
    const failed = new Promise((_, reject) => {
      socket.once('connect_error', (error) => reject(new Error(`connect: ${error.message} ${error.description ?? ''}`.trim())));
      socket.once('disconnect', (reason) => reject(lost = new Error(`lost: ${reason}`)));
    });
    const work = async () => {
      const upgraded = options.transport === 'upgrade' && once(socket.io.engine, 'upgrade', 60000);
      await once(socket, 'connect', 60000);
      result.connected++;
      for (let round = 0; round < options.rounds; round++) {
        pids.add(await socket.timeout(30000).emitWithAck('whoami'));
        await echo(socket, `client ${i} round ${round}`);
        await sleep(Math.random() * 20);
      }
      await upgraded;
      if (options.big) {
        await echo(socket, 'x'.repeat(BIG));
        await echo(socket, crypto.randomBytes(BIG));
      }
      pids.add(await socket.timeout(30000).emitWithAck('whoami'));
    };
    await Promise.race([work(), failed]);
  } catch (error) {
    result.failures++;
    count(result.errors, (lost ?? error).message);
  }
  for (const pid of pids) count(result.pids, pid);
  if (pids.size > 1) result.moved++;
  socket.removeAllListeners();
  socket.disconnect();
}

Promise.all(Array.from({ length: options.n }, (_, i) => client(i)))
  .then(() => sleep(50))
  .then(() => finish(result.failures === 0 && result.moved === 0 && result.connected === options.n));
