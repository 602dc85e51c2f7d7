// Does what one worker emits reach the clients of all? For workers/broadcast.js and sticky2-broadcast.js.
//   broadcast.js URL [--n 20] [--workers 2] [--settle 1500]
// --workers: how many there are, to know how many must answer (0: do not check).
'use strict';

const { io } = require('socket.io-client');
const { start, count, sleep } = require('./lib');

const { url, options, result, finish } = start({ n: 20, workers: 2, settle: 1500, path: '/socket.io/' });
Object.assign(result, { n: options.n, connected: 0, receipts: 0, fetched: 0, fetchedPids: [], replies: 0, replyPids: [], errors: {}, pids: {} });

(async () => {
  const sockets = [];
  for (let i = 0; i < options.n; i++) {
    const socket = io(url.href, { path: options.path, transports: [i % 2 ? 'websocket' : 'polling'], forceNew: true, reconnection: false, timeout: 20000 });
    sockets.push(socket);
    socket.on('news', () => result.receipts++);
    await new Promise((resolve) => {
      socket.once('connect', resolve);
      socket.once('connect_error', (error) => resolve(count(result.errors, error.message)));
    });
    if (!socket.connected) continue;
    result.connected++;
    count(result.pids, await socket.timeout(10000).emitWithAck('whoami').catch((error) => error.message));
  }
  await sleep(options.settle); // the adapters find each other by their heartbeats

  const ask = async (...args) => {
    try {
      const answer = await sockets[0].timeout(15000).emitWithAck(...args);
      if (answer?.error) count(result.errors, `${args[0]}: ${answer.error}`);
      return answer ?? {};
    } catch (error) {
      count(result.errors, `${args[0]}: ${error.message}`);
      return {};
    }
  };
  await ask('broadcast', { text: 'hello', at: Date.now() });
  const { sockets: fetched = [] } = await ask('fetchSockets');
  result.fetched = fetched.length;
  result.fetchedPids = [...new Set(fetched.map((one) => one.pid))];
  const { replies = [] } = await ask('serverSideEmit', 'who is there?');
  result.replies = replies.length;
  result.replyPids = replies.map((one) => one.pid);
  await sleep(300); // a receipt too many would be an error as well

  for (const socket of sockets) socket.disconnect();
  finish(result.receipts === options.n && result.fetched === options.n && Object.keys(result.errors).length === 0 &&
    (options.workers === 0 || result.replies === options.workers - 1));
})();
