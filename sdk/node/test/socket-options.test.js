'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');

// V8 itself tells how often it did not know the class of an object.
test('the options of a new socket have classes that V8 knows', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sidetrack-socket-options-'));
  try {
    const log = path.join(folder, 'v8.log');
    const program = `
      require(${JSON.stringify(require.resolve('../lib/socket-options'))});
      const net = require('node:net');
      for (let i = 0; i < 10000; i++) new net.Socket({ readable: true, writable: true });`;
    execFileSync(process.execPath, ['--log-ic', `--logfile=${log}`, '--no-logfile-per-isolate', '-e', program]);
    const lines = fs.readFileSync(log, 'utf8').split('\n');
    // Two of the options that Node reads; unaided, Node.js 20 misses both each time.
    const misses = lines.filter((line) => /^LoadIC,.*,(decodeStrings|keepAliveInitialDelay),/.test(line)).length;
    assert.ok(lines.length > 100, 'V8 has written no log');
    assert.ok(misses < 1000, `${misses} misses`);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});
