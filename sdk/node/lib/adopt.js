// Makes a connected socket the channel of this process, in place of one that has ended.
//
// Node does so at its start, by the same function, for the socket its parent has left it. It is not
// made for a second time, so what the first channel has left on `process` goes, and what the program
// has put there stays.
'use strict';

// Where a channel puts listeners of its own.
const EVENTS = ['internalMessage', 'newListener', 'removeListener'];
const listeners = () => EVENTS.map((event) => process.rawListeners(event));

// A channel's listeners are there before all others.
let ofChannel = listeners();

const symbol = Object.getOwnPropertySymbols(process).find(({ description }) => description === 'kChannelHandle');

// 'disconnect' does not tell whose wish it was: the channel's handle does.
let endedByPeer;
watch();
function watch() {
  const handle = process[symbol];
  // Should Node hide it one day, a program's own wish is no longer told apart.
  endedByPeer = !handle;
  if (!handle) return;
  const { onread } = handle;
  handle.onread = function (data) {
    if (!data && process.connected) endedByPeer = true;
    return onread.apply(this, arguments);
  };
}

/** Whether the last channel was ended by the other side. */
exports.endedByPeer = () => endedByPeer;

/** Takes the descriptor over. Nobody else may read, write or close it. */
exports.adopt = function (fd) {
  const { send } = process;
  const before = listeners();
  require('child_process')._forkChild(fd, 'json');
  // The program may have wrapped it. Node's own finds the channel when it is called.
  process.send = send;

  const added = listeners().map((now, i) => now.filter((listener) => !before[i].includes(listener)));
  for (const [i, event] of EVENTS.entries()) {
    for (const listener of ofChannel[i].slice(0, added[i].length)) process.removeListener(event, listener);
  }
  ofChannel = added;

  const [[listener], counters] = added;
  // It comes first, as it did: others look at what it has done with a message.
  process.removeListener('internalMessage', listener);
  process.prependListener('internalMessage', listener);
  // A channel keeps the process alive while somebody listens to it, and counts from its own birth on.
  const heard = process.listenerCount('message') + process.listenerCount('disconnect');
  for (const counter of counters) for (let i = 0; i < heard; i++) counter.call(process, 'message');
  watch();
};
