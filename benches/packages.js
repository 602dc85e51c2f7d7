// The packages that the tests have installed (`npm ci` in tests/node).
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');

module.exports = createRequire(path.join(__dirname, '../tests/node/package.json'));
