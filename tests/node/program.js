// Programs that are written for one test.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { after } = require('node:test');

// Beside the packages, so that such programs find them.
const FOLDER = fs.mkdtempSync(path.join(__dirname, 'node_modules/.shim-test-'));
after(() => fs.rmSync(FOLDER, { recursive: true }));

let count = 0;
exports.program = function (code, name = `program-${++count}.js`) {
  const file = path.join(FOLDER, name);
  fs.writeFileSync(file, code);
  return file;
};
exports.FOLDER = FOLDER;

let bundle;
/** listen.js with all its packages in one file, names and comments lost. */
exports.bundled = function () {
  bundle ??= path.join(FOLDER, 'bundled.js');
  require('esbuild').buildSync({
    entryPoints: [path.join(__dirname, 'workers/listen.js')], outfile: bundle, bundle: true, platform: 'node', minify: true, logLevel: 'error',
  });
  return bundle;
};
