// One real Chromium, driven over its DevTools protocol. It is found as CHROMIUM says, or as `chromium` on
// the PATH, and it goes with this process.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const WebSocket = require('ws');

// Nothing but our page: no updates, no sync, no first-run pages.
const FLAGS = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
  '--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage',
  '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows',
  '--remote-debugging-port=0',
];

/** `call(method, params, session)`, and `on(listener)` for events. Rejects when there is no Chromium. */
exports.launch = async () => {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'sidetrack-browser-'));
  const browser = spawn(process.env.CHROMIUM ?? 'chromium', [...FLAGS, `--user-data-dir=${profile}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'pipe'], detached: true,
  });
  // Its helper processes too, however we end.
  process.on('exit', () => {
    try {
      process.kill(-browser.pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  const endpoint = await new Promise((resolve, reject) => {
    browser.on('error', (error) => reject(new Error(`${error.message}; install Chromium: apt-get install chromium`)));
    let said = '';
    browser.stderr.on('data', (data) => {
      said += data;
      const found = /DevTools listening on (ws:\S+)/.exec(said);
      if (found) resolve(found[1]);
    });
  });
  const socket = new WebSocket(endpoint, { perMessageDeflate: false });
  await new Promise((resolve) => socket.once('open', resolve));
  const calls = new Map();
  const events = [];
  let id = 0;
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.id) {
      const { resolve, reject } = calls.get(message.id);
      calls.delete(message.id);
      if (message.error) reject(new Error(message.error.message));
      else resolve(message.result);
    } else {
      for (const listener of events) listener(message);
    }
  });
  return {
    on: (listener) => events.push(listener),
    call: (method, params = {}, sessionId) => new Promise((resolve, reject) => {
      calls.set(++id, { resolve, reject });
      socket.send(JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) }));
    }),
  };
};
