'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const path = require('node:path');
const { test } = require('node:test');

const run = (code, env = {}) => execFileSync(process.execPath, ['-e', code], { env: { ...process.env, ...env }, cwd: __dirname, encoding: 'utf8' });

test('outside sidetrack it is inert', () => {
  for (const env of [{}, { SIDETRACK_SLOT: 'w0' }, { SIDETRACK_SLOT: 'w0', NODE_UNIQUE_ID: '1', SIDETRACK_SESSION_KEY: 'nonsense', SIDETRACK_SID_TAG: 'w0' }]) {
    const output = run(`
      const emit = require('http').Server.prototype.emit;
      const load = require('module')._load;
      const { active, slot, sessions, tagged } = require('sidetrack-worker');
      sessions.open('a', { ends: false }).then(() => {
        const own = [sessions.own('a'), sessions.own('b')];
        sessions.close('a');
        console.log(JSON.stringify({ active, slot, own, closed: !sessions.own('a'), tagged: tagged('a'),
          untouched: emit === require('http').Server.prototype.emit && load === require('module')._load,
          listeners: process.eventNames().filter((name) => name === 'message' || name === 'internalMessage') }));
      });`, env);
    assert.deepStrictEqual(JSON.parse(output), { active: false, own: [true, false], closed: true, tagged: 'a', untouched: true, listeners: [] });
  }
});

test('two copies in a process are one', () => {
  const [index, worker] = ['../index.js', '../lib/worker.js'].map((file) => JSON.stringify(path.join(__dirname, file)));
  assert.strictEqual(run(`const first = require(${index}); delete require.cache[require.resolve(${worker})]; delete require.cache[require.resolve(${index})]; console.log(first === require(${index}))`), 'true\n');
});

test('what is packed is what is needed', () => {
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: path.join(__dirname, '..'), encoding: 'utf8' }));
  const names = files.map((file) => file.path);
  for (const name of ['index.js', 'index.mjs', 'index.d.ts', 'README.md', 'lib/preload.js', 'lib/worker.js']) assert.ok(names.includes(name), name);
  assert.ok(names.every((name) => !name.startsWith('test/')));
});
