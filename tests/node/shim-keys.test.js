// Sessions that are not announced by the program, learnt from what passes.
'use strict';

const assert = require('node:assert');
const { test } = require('node:test');
const { connect, eventually, sidetrack } = require('./primary');
const { exchange, handshake } = require('./clients/lib');
const { bundled, program } = require('./program');

async function pair(t, file, options) {
  const primary = sidetrack(t, { hold: 20, ...options });
  const workers = [await primary.start(file), await primary.start(file)];
  const urls = await Promise.all(workers.map((worker) => worker.url()));
  return { primary, workers, urls };
}

test('a bundled server: its sessions are its own, on any connection', async (t) => {
  const { primary, urls } = await pair(t, bundled());
  const sids = [];
  for (const url of urls) sids.push((await handshake(url)).sid);
  await eventually('announced', () => primary.owners.size === 2);
  const connection = await connect(urls[0]);
  for (const sid of [sids[1], sids[0], sids[1]]) {
    const target = `/socket.io/?EIO=4&transport=polling&sid=${sid}`;
    assert.strictEqual((await connection.exchange('POST', target, { headers: { 'Content-Type': 'text/plain' }, body: '3' })).status, 200);
  }
  assert.strictEqual(primary.handBacks.length, 3);
  connection.close();
});

for (const keepAlive of ['hand-back', 'close', 'worker']) {
  test(`an id in the path is the worker's that serves it first (${keepAlive})`, async (t) => {
    const file = program(`
      require('http').createServer((req, res) => {
        if (req.url.endsWith('/nothing')) res.statusCode = 404;
        res.end(process.env.SIDETRACK_SLOT);
      }).listen(process.env.PORT);`);
    const { primary, workers, urls } = await pair(t, file, { key: 'path:3', keepAlive });
    workers[0].sidetrack = workers[1].sidetrack = () => ({ final: true });
    for (const [i, url] of urls.entries()) {
      assert.strictEqual((await exchange(url, { path: `/echo/000/s${i}/xhr` })).body, `w${i}`);
      await eventually('announced', () => primary.owners.get(`s${i}`) === workers[i]);
      assert.deepStrictEqual(workers[i].of('opened'), [{ type: 'sidetrack:opened', sid: `s${i}`, ends: false }]);
    }
    if (keepAlive === 'hand-back') {
      delete workers[0].sidetrack;
      const connection = await connect(urls[0]);
      for (const i of [1, 0, 1]) assert.strictEqual((await connection.exchange('GET', `/echo/000/s${i}/xhr`)).body, `w${i}`);
      assert.strictEqual(primary.handBacks.length, 3);
      connection.close();
    }
    // What begins with 404 is no session; one that lives may ask for what does not exist.
    assert.strictEqual((await exchange(urls[1], { path: '/echo/000/s1/nothing' })).status, 404);
    assert.strictEqual((await exchange(urls[1], { path: '/echo/000/s2/nothing' })).status, 404);
    await eventually('closed', () => workers[1].sids('closed').includes('s2'));
    assert.deepStrictEqual(workers[1].sids('closed'), ['s2']);
  });
}

test('ids of headers and cookies are found however a program writes its head', async (t) => {
  const file = program(`
    let n = 0;
    require('http').createServer((req, res) => {
      const id = 'id-' + n++;
      if (req.url === '/object') res.writeHead(200, { 'x-session': id }).end();
      else if (req.url === '/array') res.writeHead(200, ['Content-Length', '0', 'X-SESSION', id]).end();
      else if (req.url === '/set') { res.setHeader('X-Session', id); res.write('a'); res.end(); }
      else if (req.url === '/flush') { res.setHeader('X-Session', id); res.flushHeaders(); res.end(); }
      else if (req.url === '/cookies') { res.setHeader('Set-Cookie', ['a=1; Path=/', 'x=' + encodeURIComponent('a b/' + id) + '; Expires=' + new Date(Date.now() + 1e6).toUTCString()]); res.end(); }
      else if (req.url === '/nothing') res.writeHead(404).end();
      else if (req.url === '/gone') { res.setHeader('Set-Cookie', 'x=; Expires=Thu, 01 Jan 1970 00:00:00 GMT'); res.end(); }
      else res.end();
    }).listen(process.env.PORT);`);
  const headers = await pair(t, file, { key: 'header:X-Session' });
  for (const path of ['/object', '/array', '/set', '/flush', '/']) {
    assert.strictEqual((await exchange(headers.urls[0], { path })).status, 200);
  }
  await eventually('announced', () => headers.workers[0].of('sockets-closed').length);
  assert.deepStrictEqual(headers.workers[0].sids('opened'), ['id-0', 'id-1', 'id-2', 'id-3']);

  // A 404 ends nothing, a DELETE that succeeds does.
  const asking = { 'X-Session': 'id-1' };
  assert.strictEqual((await exchange(headers.urls[0], { path: '/nothing', headers: asking })).status, 404);
  assert.strictEqual((await exchange(headers.urls[0], { method: 'DELETE', path: '/nothing', headers: asking })).status, 404);
  assert.strictEqual((await exchange(headers.urls[0], { method: 'DELETE', path: '/', headers: { 'X-Session': 'id-2' } })).status, 200);
  await eventually('closed', () => headers.workers[0].sids('closed').length);
  assert.deepStrictEqual(headers.workers[0].sids('closed'), ['id-2']);

  const cookies = await pair(t, file, { key: 'cookie:x' });
  assert.strictEqual((await exchange(cookies.urls[0], { path: '/cookies' })).status, 200);
  await eventually('announced', () => cookies.primary.owners.has('a b/id-0'));
  const connection = await connect(cookies.urls[0]);
  assert.strictEqual((await connection.exchange('GET', '/gone', { headers: { Cookie: 'x=a%20b%2Fid-0' } })).status, 200);
  await eventually('closed', () => cookies.workers[0].sids('closed').includes('a b/id-0'));
  assert.strictEqual(cookies.primary.handBacks.length, 0);
  connection.close();
});
