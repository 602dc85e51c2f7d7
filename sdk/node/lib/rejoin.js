// A worker that has joined a sidetrack outlives it: when the channel ends, it goes on with what it
// has, joins again, and tells of its sessions and servers anew. The program notices nothing.
'use strict';

const { adopt, endedByPeer } = require('./adopt');
const { join } = require('./join');
const { lookout } = require('./lookout');

const SHORTEST = 100; // between two attempts, in milliseconds
const LONGEST = 5000;
// A channel that ends sooner was no success.
const PROVEN_AFTER = 10_000;
// How long a slot that was given, not chosen, is asked for while somebody else has it.
const SLOT_PATIENCE = 5000;
const GIVEN = /^(?:[\w-]+\.)?w\d+$/;

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
    const file = lookout(socket);
    const place = await another(file, () => left);
    file.close();
    if (left) return place?.close();
    if (!place) return process.disconnect();
    adopt(place.take());
    slot = place.answer.slot;
    worker.id = place.answer.id;
    since = Date.now();
    channel.back();
  }

  /** A place at another sidetrack; none when the program wants none any more. */
  async function another(file, left) {
    let refused; // since when
    for (;;) {
      const news = await file.wait(Math.min(LONGEST, SHORTEST * 2 ** attempts));
      attempts = news ? 0 : Math.min(attempts + 1, 16);
      if (left() || worker.exitedAfterDisconnect) return undefined;
      const any = GIVEN.test(slot) && Date.now() - refused > SLOT_PATIENCE;
      let place;
      try {
        place = await join(socket, any ? undefined : slot);
        accept(place.answer);
        return place;
      } catch (error) {
        place?.close();
        refused = error.refused ? refused ?? Date.now() : undefined;
      }
    }
  }

  function leave() {
    emit.call(process, 'disconnect');
  }
};
