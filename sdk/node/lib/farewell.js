// What happens when the channel ends.
'use strict';

exports.prepare = function (sockets) {
  const { worker } = require('cluster');

  // When its primary is gone, Node ends a worker at once, with all its connections. A worker that
  // serves some stays until they have ended, unless the program's own timers would keep it forever.
  let patience = 0;
  process.prependListener('disconnect', () => {
    // A planned disconnect may be followed by a program's longer goodbyes.
    patience = worker.exitedAfterDisconnect ? 5000 : 1000;
    if (sockets.live() > 0) worker.exitedAfterDisconnect = true;
    leaveWhenIdle();
  });
  sockets.onIdle(leaveWhenIdle);

  function leaveWhenIdle() {
    if (patience && sockets.live() === 0) setTimeout(() => sockets.live() === 0 && process.exit(), patience).unref();
  }

  // What the program sends from then on fails. Node reports that as an 'error' of the process,
  // which the cluster module passes on to the worker object, where it would be fatal.
  // ECONNRESET: sidetrack ended with messages of ours unread.
  const CHANNEL_ENDED = new Set(['EPIPE', 'ECONNRESET', 'ERR_IPC_CHANNEL_CLOSED', 'ERR_IPC_DISCONNECTED']);
  worker.on('error', (error) => {
    if (error && CHANNEL_ENDED.has(error.code)) return;
    if (worker.listenerCount('error') === 1) throw error;
  });
};
