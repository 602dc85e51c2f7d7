// A worker that has joined a sidetrack outlives it: when the channel ends, it goes on with what it
// has, joins again, and tells of its sessions and servers anew. The program notices nothing.
'use strict';

const fs = require('fs');
const path = require('path');
const { adopt, endedByPeer } = require('./adopt');
const { join } = require('./join');

const SHORTEST = 100; // between two attempts, in milliseconds
const LONGEST = 5000;
// A channel that ends sooner was no success.
const PROVEN_AFTER = 10_000;
// How long a slot that was given, not chosen, is asked for while somebody else has it.
const SLOT_PATIENCE = 5000;

/** `accept(answer)` follows the new sidetrack's terms, or throws if it cannot. */
exports.prepare = function ({ socket, slot, channel, accept }) {
  const { worker } = require('cluster');
  let sentAway = false;
  let attempts = 0;
  let since = Date.now();

  // A sidetrack that stops asks its workers to finish. Node would close the program's servers, for
  // good: but only this sidetrack ends.
  process.prependListener('internalMessage', (message) => {
    if (message.cmd !== 'NODE_CLUSTER' || message.act !== 'disconnect') return;
    message.act = undefined;
    sentAway = true;
    // First what came before it, and with it.
    setImmediate(() => process.connected && process.disconnect());
  });

  // Many a program ends on 'disconnect', and Node's cluster module does: they hear of the channel's
  // end only if it is the program's own wish.
  const { emit } = process;
  const replacement = function (event) {
    if (event === 'disconnect' && (sentAway || endedByPeer()) && !worker.exitedAfterDisconnect) {
      rejoin();
      return true;
    }
    return emit.apply(this, arguments);
  };
  Object.defineProperty(process, 'emit', { value: replacement, configurable: true, writable: true });

  async function rejoin() {
    sentAway = false;
    channel.lost();
    if (Date.now() - since >= PROVEN_AFTER) attempts = 0;
    let left = false;
    // Replaced by the next channel's.
    process.disconnect = () => {
      if (!left) process.nextTick(leave);
      left = true;
    };
    const begun = Date.now();
    for (;;) {
      const news = await pause(Math.min(LONGEST, SHORTEST * 2 ** attempts), socket);
      attempts = news ? 0 : Math.min(attempts + 1, 16);
      if (left) return;
      if (worker.exitedAfterDisconnect) return process.disconnect();
      const given = /^w\d+$/.test(slot) && Date.now() - begun > SLOT_PATIENCE;
      try {
        const { answer, take, close } = await join(socket, given ? undefined : slot);
        try {
          if (left) return close();
          accept(answer);
        } catch (error) {
          close();
          throw error;
        }
        adopt(take());
        slot = answer.slot;
        worker.id = answer.id;
        since = Date.now();
        return channel.back();
      } catch {
        // Later, then.
      }
    }
  }

  function leave() {
    emit.call(process, 'disconnect');
  }
};

/**
 * Waits about so long, or until something happens to the socket's file, which is true then. Not all
 * workers come at the very same moment.
 */
const pause = (ms, file) => new Promise((resolve) => {
  let timer = setTimeout(done, ms * (0.5 + Math.random() / 2), false);
  let watcher;
  function done(news) {
    watcher?.close();
    resolve(news);
  }
  // Where even its folder is gone, as one of /run is with its service, that is waited for first.
  let awaited = file;
  let folder = path.dirname(file);
  while (!fs.existsSync(folder)) [awaited, folder] = [folder, path.dirname(folder)];
  function look(_, name) {
    if (name !== path.basename(awaited)) return;
    watcher.close();
    clearTimeout(timer);
    timer = setTimeout(done, 5 + Math.random() * 20, true);
  }
  try {
    watcher = fs.watch(folder, { persistent: false }, look);
    watcher.on('error', () => {});
  } catch {
    // No watches left: the timer will do.
  }
});
