// Looks out for a socket's file, so that a sidetrack which starts again is found at once.
'use strict';

const fs = require('fs');
const path = require('path');

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

exports.lookout = function (file) {
  let watcher;
  let news = false;
  let wake;

  // Anew for each wait, since a folder may be removed and made again; the old one goes when the new
  // one is there, so that nothing is missed.
  function watch() {
    // One of /run goes with its service: then that is waited for first.
    let awaited = file;
    let folder = path.dirname(file);
    while (!fs.existsSync(folder)) [awaited, folder] = [folder, path.dirname(folder)];
    const before = watcher;
    try {
      watcher = fs.watch(folder, { persistent: false }, (_, name) => {
        if (name !== path.basename(awaited)) return;
        news = true;
        wake?.();
      });
      watcher.on('error', () => {});
    } catch {
      watcher = undefined; // no watches left: the time will do
    }
    before?.close();
  }

  return {
    /** Waits about so long, or until something has happened to the file, which is true then. */
    async wait(ms) {
      watch();
      if (!news) {
        await new Promise((resolve) => {
          const timer = setTimeout(resolve, ms * (0.5 + Math.random() / 2));
          wake = () => resolve(clearTimeout(timer));
        });
      }
      const heard = news;
      // Not all workers come at the very same moment.
      if (heard) await sleep(5 + Math.random() * 20);
      news = false;
      return heard;
    },
    close: () => watcher?.close(),
  };
};
