// What the shim says over the channel to sidetrack.
'use strict';

const path = require('path');
const { EventEmitter } = require('events');

// Programs that run the server as a child of theirs and keep the channel to themselves.
const WRAPPER = /^(npm|npx|pnpm|pnpx|yarn|corepack|nodemon|pm2|tsx|ts-node-dev|node-dev|concurrently|cross-env|env-cmd|npm-run-all|run-[sp])(?:-cli|-runtime|-shell|-\d[\d.]*)?$/;

// How long a connection that is to be handed back waits for a channel.
const PATIENCE = 5000;

/**
 * Its `events`: 'end' when nothing will leave any more, or not soon enough; in a worker that joins
 * again, 'lost' and 'back' around an interruption.
 */
exports.open = function () {
  const { worker } = require('cluster');
  const events = new EventEmitter();
  // A program may wrap process.send; ours goes past its wrapper.
  const send = process.send;
  const unwritten = new Set();

  /**
   * Sends a message. `written` is called once it is in the channel, or never will be; it also keeps
   * Node from emitting an 'error' for what cannot be sent.
   */
  function tell(message, written) {
    if (!written) return send.call(process, message, undefined, undefined, () => {});
    const settled = () => unwritten.delete(settled) && written();
    unwritten.add(settled);
    return send.call(process, message, undefined, undefined, settled);
  }

  // Sockets to send. Node holds everything else back until one is acknowledged, and would send the
  // bare message for a socket that has ended meanwhile: so one is given to it at a time.
  const line = [];
  let announced = true; // whether this sidetrack knows what is served here
  let waiting = null; // while it soon may, again: the timer that ends that

  /** Sends a message with a socket, unless that ends first. `sent(error)` tells that it has been. */
  function give(message, socket, sent) {
    line.push({ message, socket, sent });
    next();
  }

  function next() {
    while (line.length > 0 && !process._handleQueue && !waiting) {
      const { message, socket, sent } = line.shift();
      if (!socket._handle) sent();
      else if (!announced) sent(new Error('there is no sidetrack'));
      else send.call(process, message, socket, undefined, sent);
    }
    if (process._handleQueue) watchForTheEnd();
  }

  // Node's own listener comes first.
  process.on('internalMessage', ({ cmd }) => {
    if (cmd === 'NODE_HANDLE_ACK' || cmd === 'NODE_HANDLE_NACK') next();
  });

  process.on('disconnect', ended);
  function ended() {
    clearTimeout(waiting);
    waiting = null;
    line.length = 0;
    settle();
    events.emit('end');
  }

  // Node forgets the callbacks of what it still holds back when the channel ends.
  function settle() {
    for (const settled of unwritten) settled();
  }

  /** The channel has ended and another will come. */
  function lost() {
    announced = false;
    settle();
    clearTimeout(waiting);
    waiting = setTimeout(ended, PATIENCE).unref();
    events.emit('lost');
  }

  /** It has come. */
  function back() {
    greet();
    events.emit('back');
  }

  /** Tells a sidetrack of what is served here, and, once, of the sessions. */
  function announce(tellServers, tellSessions, sessionsFirst) {
    if (announced) return tellServers();
    if (!process.connected) return;
    if (sessionsFirst) tellSessions();
    tellServers();
    if (!sessionsFirst) tellSessions();
    announced = true;
    clearTimeout(waiting);
    waiting = null;
    next();
  }

  // Should the channel end while a socket is on its way, Node waits for an acknowledgement that
  // cannot come any more, and 'disconnect' is never emitted: the worker would outlive its primary.
  let watching = false;
  function watchForTheEnd() {
    if (watching) return;
    watching = true;
    const timer = setInterval(() => {
      const ended = !process.connected && !process.channel;
      if (process._handleQueue && !ended) return;
      clearInterval(timer);
      watching = false;
      if (!process._handleQueue || !ended) return;
      process._handleQueue = null;
      process._pendingMessage?.handle.close();
      process._pendingMessage = null;
      process.emit('disconnect');
    }, 200).unref();
  }

  const program = path.basename(process.argv[1] ?? '').replace(/\.[cm]?js$/, '');
  const wrapper = WRAPPER.exec(program)?.[1];
  greet();
  if (wrapper) tell({ type: 'sidetrack:wrapper', name: wrapper });
  function greet() {
    tell({ type: 'sidetrack:hello', shim: 1, node: process.version, main: process.argv[1], replays: true });
  }

  // A message that comes before the program listens is lost: for cluster workers Node does not
  // queue. From the first listener on, probing makes sense. One listener is the cluster module's.
  let listening = process.listenerCount('message') > 1 || worker.listenerCount('message') > 0;
  const tellListening = () => listening && tell({ type: 'sidetrack:listens' });
  function reportListening() {
    const emitters = [process, worker];
    const onNewListener = (event) => {
      if (event !== 'message') return;
      for (const emitter of emitters) emitter.removeListener('newListener', onNewListener);
      listening = true;
      tellListening();
    };
    if (listening) tellListening();
    else for (const emitter of emitters) emitter.on('newListener', onNewListener);
  }

  /** Whether a connection can be handed back, now or soon. */
  const usable = () => (process.connected && announced) || waiting !== null;

  return { events, wrapper, tell, give, usable, reportListening, tellListening, lost, back, announce };
};
