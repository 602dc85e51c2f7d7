// Tabs of one real Chromium, each with a Socket.IO session that polls. Browsers share at most six
// connections among all tabs, so each connection carries requests of several sessions.
//   browser.js URL [--tabs 3] [--seconds 20]
'use strict';

const { launch } = require('./chromium');
const { start, count, sleep } = require('./lib');

const { url, options, result, finish } = start({ tabs: 3, seconds: 20, deadline: 400 });
Object.assign(result, {
  tabs: options.tabs, connected: 0, disconnects: 0, echoes: 0, least: 0, statuses: {}, connections: 0, mixed: 0, errors: {}, pids: {},
});

(async () => {
  const { call, on } = await launch();
  const sidsOf = new Map(); // connection → sessions seen on it
  on(({ method, params }) => {
    if (method !== 'Network.responseReceived' || !params.response.url.includes('transport=polling')) return;
    const { status, connectionId, url } = params.response;
    count(result.statuses, status);
    const sids = sidsOf.get(connectionId) ?? sidsOf.set(connectionId, new Set()).get(connectionId);
    const sid = /[?&]sid=([^&]+)/.exec(url);
    if (sid) sids.add(sid[1]);
  });

  const tabs = [];
  for (let i = 0; i < options.tabs; i++) {
    const { targetId } = await call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
    await call('Network.enable', {}, sessionId);
    await call('Page.navigate', { url: new URL('/tab', url).href }, sessionId);
    tabs.push(sessionId);
  }
  const look = (tab) => call('Runtime.evaluate', { expression: 'JSON.stringify(window.tally ?? {})', returnByValue: true }, tab)
    .then(({ result }) => JSON.parse(result.value));
  const mixed = () => [...sidsOf.values()].filter((sids) => sids.size > 1).length;
  // A slow machine takes its time to mix them.
  for (let second = 0; second < options.seconds || (mixed() === 0 && second < options.seconds + 60); second++) await sleep(1000);

  let least = Infinity;
  for (const tab of tabs) {
    const tally = await look(tab);
    if (tally.connected && tally.transport === 'polling') result.connected++;
    result.disconnects += tally.disconnects ?? 0;
    result.echoes += tally.echoes ?? 0;
    least = Math.min(least, tally.echoes ?? 0);
    for (const [error, times] of Object.entries(tally.errors ?? {})) count(result.errors, error, times);
    if (tally.pid) count(result.pids, tally.pid);
  }
  result.least = least;
  result.connections = sidsOf.size;
  result.mixed = mixed();
  const onlyOk = Object.keys(result.statuses).every((status) => status === '200');
  finish(result.connected === options.tabs && result.disconnects === 0 && onlyOk && least > 0);
})();
