// An example under sidetrack: started, watched, stopped. Its log is printed when a test fails.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { test } = require('node:test');
const { BINARY, ROOT, missing } = require('./binary');

const PATIENCE = 20_000;
const WORKERS = 3;

/**
 * A test of `examples/<name>` behind `sidetrack run --session-key <key>`. `body` gets what serves it,
 * and what it returns is called with the figures of the run, once that has ended by itself.
 */
exports.served = function (what, { example, key, options = [] }, body) {
  test(what, async () => {
    const complaint = missing();
    if (complaint) throw new Error(complaint);
    const sidetrack = new Sidetrack(example, ['--session-key', key, ...options]);
    try {
      await sidetrack.ready(WORKERS);
      const check = await body(sidetrack);
      const figures = await sidetrack.stop();
      await check?.(figures);
    } catch (error) {
      await sidetrack.cut();
      console.error(`--- what sidetrack and its workers said (${what})\n${sidetrack.log}---`);
      throw error;
    } finally {
      fs.rmSync(sidetrack.folder, { recursive: true });
    }
  });
};

class Sidetrack {
  log = '';

  constructor(example, options) {
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sidetrack-sessions-'));
    this.readyFile = path.join(this.folder, 'ready.json');
    const command = [process.execPath, path.join(ROOT, 'examples', example, 'server.js')];
    const where = ['--workers', `${WORKERS}`, '--listen', '127.0.0.1:0', '--ready-file', this.readyFile];
    this.child = spawn(BINARY, ['run', '--log-format', 'json', ...where, ...options, '--', ...command], {
      // The packages of all examples are installed once, here; an example's own come first.
      env: { ...process.env, NODE_PATH: path.join(__dirname, 'node_modules') },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.child.stdout, this.child.stderr]) stream.on('data', (chunk) => (this.log += chunk));
    this.ended = once(this.child, 'close');
    this.ended.catch(() => {}); // told where it is awaited
  }

  /** Waits until so many workers are ready. */
  async ready(workers) {
    await eventually(`${workers} workers are ready`, () => {
      if (this.child.exitCode !== null) throw new Error(`sidetrack has ended with code ${this.child.exitCode}`);
      return this.pids().length === workers;
    });
    this.url = `http://${this.state().addresses[0]}`;
  }

  state() {
    return fs.existsSync(this.readyFile) ? JSON.parse(fs.readFileSync(this.readyFile, 'utf8')) : { workers: [], addresses: [] };
  }

  /** The workers that are ready. */
  pids() {
    return this.state().workers.map(({ pid }) => pid);
  }

  /** Kills a worker, and waits until another has taken its place. */
  async replace(pid) {
    process.kill(pid, 'SIGKILL');
    await eventually('the killed worker is replaced', () => {
      const pids = this.pids();
      return pids.length === WORKERS && !pids.includes(pid);
    });
  }

  /** Asked to end, it drains: nobody has to be cut off. The figures of its last line. */
  async stop() {
    this.child.kill('SIGTERM');
    const [code] = await this.ended;
    if (code !== 0) throw new Error(`sidetrack ended with code ${code}`);
    const last = this.log.trimEnd().split('\n').findLast((line) => line.includes('"figures"'));
    if (!last) throw new Error('sidetrack ended without its figures');
    return JSON.parse(JSON.parse(last).figures);
  }

  /** Ended without ado; a second signal means at once. */
  async cut() {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill('SIGTERM');
      this.child.kill('SIGINT');
    }
    await this.ended.catch(() => {});
  }
}

/** Looks again until it is so. */
async function eventually(what, holds) {
  const until = Date.now() + PATIENCE;
  while (!(await holds())) {
    if (Date.now() > until) throw new Error(`not within ${PATIENCE / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
exports.eventually = eventually;

/** The same for so many, all at once. */
exports.all = (count, work) => Promise.all(Array.from({ length: count }, (_, i) => work(i)));
