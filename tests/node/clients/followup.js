// Comes back with a new session id as fast as it can: handshake on one connection, then at once a
// poll and a POST on new ones. Every 400 is a session that was not yet known.
//   followup.js URL [--n 1000] [--parallel 4] [--mode post|both] [--path /socket.io/]
'use strict';

const { start, count, pool, exchange, handshake } = require('./lib');

const { url, options, result, finish } = start({ n: 1000, parallel: 4, mode: 'both', path: '/socket.io/' });
Object.assign(result, { n: options.n, sessions: 0, requests: 0, unknown: 0, failures: 0, moved: 0, errors: {}, pids: {} });

async function session() {
  const { sid, pid, error } = await handshake(url, options);
  if (error) {
    result.failures++;
    return count(result.errors, `handshake: ${error}`);
  }
  result.sessions++;
  count(result.pids, pid);
  const path = `${options.path}?EIO=4&transport=polling&sid=${sid}`;
  const follow = async (what, request) => {
    const answer = await exchange(url, { path, ...request });
    result.requests++;
    if (answer.status === 200) {
      if (answer.headers['x-worker-pid'] !== pid) result.moved++;
    } else {
      if (answer.status === 400) result.unknown++;
      else result.failures++;
      count(result.errors, `${what}: ${answer.status ?? answer.error} ${answer.body ?? ''}`.trim());
    }
  };
  const text = { 'Content-Type': 'text/plain;charset=UTF-8' };
  const post = () => follow('post', { method: 'POST', headers: text, body: '40' });
  // The poll is answered by what the POST causes, so it cannot go alone.
  if (options.mode === 'post') await post();
  else await Promise.all([post(), follow('get')]);
  await follow('close', { method: 'POST', headers: text, body: '1' });
}

pool(options.n, options.parallel, session)
  .then(() => finish(result.unknown === 0 && result.failures === 0 && result.moved === 0));
