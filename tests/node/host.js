// A sidetrack that starts no workers, and workers that join it. They get the shim of this tree, not the
// one in the program.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { SHIM, eventually } = require('./primary');

const PROGRAM = path.resolve(__dirname, process.env.SIDETRACK_BIN ?? '../../target/debug/sidetrack');

if (!fs.existsSync(PROGRAM)) throw new Error(`${PROGRAM} is not there: build it with \`cargo build\`, or set SIDETRACK_BIN`);

/** A place to join at; its sidetrack is started and ended as often as the test likes. */
exports.host = function (t, { words = [] } = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sidetrack-test-'));
  const socket = path.join(folder, 'run', 'join.sock');
  const readyFile = path.join(folder, 'ready.json');
  fs.mkdirSync(path.dirname(socket));
  const processes = new Set();
  let address = '127.0.0.1:0'; // the same one at each start
  let running;
  let log = '';

  t.after(async () => {
    for (const one of processes) one.kill('SIGKILL');
    await Promise.all([...processes].map(({ exited }) => exited));
    fs.rmSync(folder, { recursive: true });
  });

  function run(args) {
    const child = spawn(PROGRAM, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const made = {
      pid: child.pid,
      kill: (signal) => child.kill(signal),
      output: '',
      ended: false,
      exited: once(child, 'exit').then(([code, signal]) => {
        made.ended = true;
        processes.delete(made);
        return signal ?? code;
      }),
    };
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (made.output += data));
    processes.add(made);
    return made;
  }

  const self = {
    socket,
    log: () => log + (running?.output ?? ''),
    url: () => new URL(`http://${address}`),
    /** Starts sidetrack, and waits until so many workers are there. */
    async start(workers, more = []) {
      fs.rmSync(readyFile, { force: true });
      fs.mkdirSync(path.dirname(socket), { recursive: true });
      running = run(['run', '--workers', '0', '--join-socket', socket, '--listen', address, '--ready-file', readyFile, ...words, ...more]);
      await eventually('the join socket', () => fs.existsSync(socket));
      if (workers) await self.has(workers);
      return self.url();
    },
    ready() {
      try {
        return JSON.parse(fs.readFileSync(readyFile, 'utf8'));
      } catch {
        return undefined;
      }
    },
    async has(workers) {
      const found = await eventually(() => `${workers} workers; ${self.log()}`, () => {
        const ready = self.ready();
        return ready?.workers.length === workers && ready;
      });
      [address] = found.addresses;
      return found.workers;
    },
    /** Removes the join socket's folder, as a service manager does with one below /run. */
    tidy: () => fs.rmSync(path.dirname(socket), { recursive: true }),
    async stop(signal) {
      running.kill(signal);
      const ended = await running.exited;
      log += running.output;
      running = undefined;
      return ended;
    },
    /** A worker; `words` for `sidetrack join`, `before` for what comes before node. */
    join(file, { words = [], before = [], shim = SHIM } = {}) {
      return run(['join', '--no-shim', '--socket', socket, ...words, '--', ...before,
        process.execPath, '--require', shim, path.resolve(__dirname, 'workers', file)]);
    },
  };
  return self;
};
