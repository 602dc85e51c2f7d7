// What the tests run is what the examples' users get: the same versions, the same commands.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { execFileSync } = require('node:child_process');
const { test } = require('node:test');
const { BINARY, ROOT } = require('./binary');
const { dependencies } = require('./package.json');

for (const example of ['cookie', 'mcp', 'signalr', 'sockjs']) {
  const read = (file) => fs.readFileSync(path.join(ROOT, 'examples', example, file), 'utf8');

  test(`examples/${example}: the versions tested are the ones it asks for`, () => {
    const own = Object.entries(JSON.parse(read('package.json')).dependencies);
    assert.ok(own.length > 0);
    for (const [name, version] of own) assert.strictEqual(dependencies[name], version, name);
  });

  test(`examples/${example}: sidetrack would start what its README says`, () => {
    const [, words] = /^cargo run --release -- run (.+)$/m.exec(read('README.md'));
    execFileSync(BINARY, ['check', ...words.split(' ')], { cwd: ROOT, stdio: 'pipe' });
  });
}
