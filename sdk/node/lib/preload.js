// What sidetrack preloads into Node.js workers with `NODE_OPTIONS=--require`.
//
// Every program that inherits NODE_OPTIONS runs it, so it does nothing outside a worker and prints
// nothing.
'use strict';

const path = require('path');

// In a worker's thread, or in its children, there is nothing to do.
if (process.env.SIDETRACK_SLOT !== undefined && process.connected && require('worker_threads').isMainThread) {
  leaveNoTraceInTheEnvironment();
  if (require('cluster').isWorker) {
    require('./worker');
  } else if (process.env.WATCH_REPORT_DEPENDENCIES) {
    // `node --watch` keeps the channel and preloads nothing itself, but passes on what its child says.
    process.send({ type: 'sidetrack:wrapper', name: 'node --watch' }, undefined, undefined, () => {});
  }
}

// Children of the worker are no workers. SIDETRACK_SLOT stays: a program may want to know it.
function leaveNoTraceInTheEnvironment() {
  const isThisFile = (file) => {
    try {
      return require.resolve(path.resolve(file)) === __filename;
    } catch {
      return false;
    }
  };
  const options = (process.env.NODE_OPTIONS ?? '')
    .replace(/(?:^|\s+)(?:--require|-r)(?:=|\s+)("(?:[^"\\]|\\.)*"|\S+)/g, (option, file) =>
      isThisFile(file[0] === '"' ? file.slice(1, -1).replace(/\\(.)/g, '$1') : file) ? '' : option)
    .trim();
  if (options) process.env.NODE_OPTIONS = options;
  else delete process.env.NODE_OPTIONS;
}
