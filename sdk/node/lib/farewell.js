// What happens when the channel ends.
'use strict';

exports.prepare = function (sockets) {
  const { worker } = require('cluster');

  // When its primary is gone, Node ends a worker at once, with all its connections. A worker that
  // serves some stays until they have ended, unless the program's own timers would keep it forever.
  let patience = 0;
  let planned = false;
  let told = false;
  process.prependListener('disconnect', () => {
    planned = worker.exitedAfterDisconnect;
    // A planned disconnect may be followed by a program's longer goodbyes.
    patience = planned ? 5000 : 1000;
    if (sockets.live() > 0) worker.exitedAfterDisconnect = true;
    leaveWhenIdle();
  });
  sockets.onIdle(leaveWhenIdle);

  // Most programs that have something to put away expect a signal for it, and end by themselves then. After a
  // planned end they have the time that sidetrack gives them; it sees to it that they keep to it.
  function leaveWhenIdle() {
    if (!patience || sockets.live() > 0) return;
    const listens = process.listenerCount('SIGTERM') > 0;
    if (listens && !told) {
      told = true;
      process.kill(process.pid, 'SIGTERM');
    }
    if (listens && planned) return;
    setTimeout(() => sockets.live() === 0 && process.exit(), listens ? 10_000 : patience).unref();
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
