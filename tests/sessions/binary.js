// The program under test: SIDETRACK_BIN, or the repository's debug build. Run as a script, it says in
// one line what is missing.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

const ROOT = path.join(__dirname, '../..');
const BINARY = path.resolve(process.env.SIDETRACK_BIN || path.join(ROOT, 'target/debug/sidetrack'));

/** What keeps the tests from running, if anything does. */
function missing() {
  if (Number(process.versions.node.split('.')[0]) < 20) return `these tests need Node.js 20 or later, this is ${process.version}`;
  if (!fs.existsSync(path.join(__dirname, 'node_modules'))) return `packages are missing: npm ci --prefix ${__dirname}`;
  try {
    fs.accessSync(BINARY, fs.constants.X_OK);
  } catch {
    return `sidetrack is missing: ${BINARY} is no program; cargo build makes target/debug/sidetrack, SIDETRACK_BIN names another`;
  }
  return undefined;
}

module.exports = { BINARY, ROOT, missing };

if (require.main === module) {
  const complaint = missing();
  if (complaint) {
    console.error(complaint);
    process.exit(1);
  }
}
