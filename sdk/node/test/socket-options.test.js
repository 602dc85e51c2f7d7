'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const { test } = require('node:test');

// V8 itself tells how often it did not know the class of an object.
test('the options of a new socket have classes that V8 knows', () => {
  const program = `
    require(${JSON.stringify(require.resolve('../lib/socket-options'))});
    const net = require('node:net');
    for (let i = 0; i < 10000; i++) new net.Socket({ readable: true, writable: true });`;
  const log = execFileSync(
    process.execPath,
    ['--log-ic', '--logfile=-', '--no-logfile-per-isolate', '-e', program],
    { encoding: 'utf8', maxBuffer: Infinity },
  );
  const lines = log.split('\n');
  // Two of the options that Node reads; unaided, Node.js 20 misses both each time.
  const misses = lines.filter((line) => /^LoadIC,.*,(decodeStrings|keepAliveInitialDelay),/.test(line)).length;
  assert.ok(lines.length > 100, 'V8 has written no log');
  assert.ok(misses < 1000, `${misses} misses`);
});
