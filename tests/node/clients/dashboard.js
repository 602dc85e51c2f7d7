// A person at the dashboard, in a real Chromium: looks, enters the token, presses buttons.
//   dashboard.js PAGE --server URL --token TOKEN [--shots FOLDER] [--marker FILE]
// With --marker, a file is written once the page is live, and the page is to survive what happens then.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { launch } = require('./chromium');
const { start, sleep } = require('./lib');

const { url, options, result, finish } = start({ server: '', token: '', shots: '', marker: '', deadline: 300 });
Object.assign(result, { steps: [], console: [] });

const SID = '"><img src=x onerror="window.harmed=1">';

/** Asks the admin interface itself. */
async function ask(target, body) {
  const response = await fetch(new URL(target, url), {
    method: body ? 'POST' : 'GET',
    headers: { authorization: `Bearer ${options.token}`, 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  return response.json();
}

/** Connections of their own, as from many clients. */
function load() {
  const paths = ['/pid', '/socket.io/?EIO=4&transport=polling', '/pid?<b>bold</b>',
    `/socket.io/?EIO=4&transport=polling&sid=${encodeURIComponent(SID)}`];
  let turn = 0;
  const one = () => {
    const { hostname, port } = new URL(options.server);
    const target = paths[turn++ % paths.length];
    const request = http.request({ hostname, port, path: target.replace(/ /g, '%20'), agent: false });
    request.on('response', (response) => response.resume()).on('error', () => {}).end();
  };
  const timer = setInterval(one, 20);
  return () => clearInterval(timer);
}

(async () => {
  const { call, on } = await launch();
  const { targetId } = await call('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  const page = (method, params) => call(method, params, sessionId);
  let restarting = false;
  on(({ method, params }) => {
    if (method === 'Runtime.exceptionThrown') result.console.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === 'Runtime.consoleAPICalled') result.console.push(params.args.map(({ value }) => value).join(' '));
    // Chromium itself notes every answer that is no success. Those for want of a token or a session are meant to be.
    const meant = (entry) => entry.source === 'network' && (restarting || / 40[14] /.test(entry.text));
    if (method === 'Log.entryAdded' && !meant(params.entry)) result.console.push(params.entry.text);
  });
  for (const domain of ['Runtime', 'Log', 'Page']) await page(`${domain}.enable`);
  const evaluate = async (expression) => {
    const { result: { value }, exceptionDetails } = await page('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`${exceptionDetails.exception?.description} in ${expression}`);
    return value;
  };
  const text = (selector) => evaluate(`document.querySelector(${JSON.stringify(selector)})?.textContent ?? ''`);
  const click = (selector) => evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`);
  /** Waits until it is so, and notes that it was. */
  const until = async (what, condition) => {
    for (let i = 0; i < 900; i++) {
      const value = await condition();
      if (value) {
        result.steps.push(what);
        return value;
      }
      await sleep(100);
    }
    result.page = await evaluate('document.body.innerText');
    throw new Error(`never came: ${what}`);
  };
  const size = (width, height) => page('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 });

  await size(1440, 1000);
  await page('Page.navigate', { url: url.href });

  await until('a token is asked for', () => evaluate('document.getElementById("door")?.open'));
  const enter = (token) => evaluate(`document.getElementById('token').value = ${JSON.stringify(token)}; document.querySelector('#door-form button').click()`);
  await enter('0123456789abcdef-not-it');
  await until('a wrong one is refused', async () => (await text('#door-error')) === 'this is not the token');
  await enter(options.token);
  await until('the page is live', async () => (await text('#link')) === 'live' && !(await evaluate('document.getElementById("door").open')));

  if (options.marker) {
    restarting = true;
    const pid = (await ask('/v1/status')).pid;
    fs.writeFileSync(options.marker, String(pid));
    await until('it is live again', async () => (await text('#link')) === 'live' && !(await text('#run')).includes(`process ${pid} `));
    await until('the chart says so', async () => (await evaluate('[...document.querySelectorAll(".mark title")].map((title) => title.textContent)')).includes('sidetrack restarted'));
    const stop = load();
    await until('the tail goes on', async () => (await evaluate('document.querySelectorAll("#tail li").length')) > 3);
    stop();
    return finish(result.console.length === 0);
  }

  const workers = await ask('/v1/workers');
  const rows = await evaluate('[...document.querySelectorAll("#rows tr")].map((row) => row.querySelector("th").textContent)');
  await until('all workers are shown', () => rows.length === workers.length && workers.every(({ worker, pid }, at) => rows[at].startsWith(`${worker} ${pid}`)));

  const stop = load();
  const tile = (at) => text(`#figures .tile:nth-child(${at}) .large`);
  await until('figures move', async () => Number(await tile(1)) > 5);
  await until('bands are drawn', async () => (await evaluate('document.querySelectorAll(".band").length')) >= workers.length);
  await until('decisions are told', async () => (await evaluate('document.querySelectorAll("#tail li").length')) > 20);
  await until('what strangers send is text', async () => {
    const told = await text('#tail');
    return told.includes('<b>bold</b>') && told.includes(SID);
  });
  result.harmed = await evaluate('window.harmed ?? document.querySelectorAll("#tail img, #tail b b, #tail script").length');

  await evaluate(`document.getElementById('filter').value = 'onerror'; document.getElementById('filter').dispatchEvent(new Event('input'))`);
  await until('a filter leaves what fits', async () => {
    const told = await evaluate('[...document.querySelectorAll("#tail li")].map((row) => row.textContent)');
    return told.length > 3 && told.every((row) => row.includes(SID));
  });
  await click('#pause');
  const paused = await evaluate('document.querySelectorAll("#tail li").length');
  await sleep(600);
  result.paused = (await evaluate('document.querySelectorAll("#tail li").length')) === paused;
  await click('#pause');
  await evaluate(`document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input'))`);

  await ask('/v1/policy/set', { policy: 'round-robin' });
  await until('a swap leaves a mark', async () => (await text('.mark title')) === 'g2' && (await text('.generation')) === 'g2');
  await click('.link h3 button');
  await until('rolling back asks first', () => evaluate('document.getElementById("ask").open'));
  await click('#ask-no');
  result.kept = (await ask('/v1/policy')).links[0].generation === 2;
  await click('.link h3 button');
  await click('#ask-yes');
  await until('it says what came of it', async () => (await text('#notes')).includes('as generation 3'));
  await until('it is rolled back', async () => (await ask('/v1/policy')).links[0].generation === 3 && (await text('.generation')) === 'g3');

  const slot = workers[1].worker;
  await click(`[aria-label^="Drain ${slot},"]`);
  await until('a button drains', async () => (await ask('/v1/workers')).find(({ worker }) => worker === slot)?.draining && (await text('#rows tr:nth-child(2) .pill')) === 'draining');
  await until('it says what was done', async () => (await text('#notes')).includes(`${slot} is draining`));
  await click(`[aria-label^="Undrain ${slot},"]`);
  await until('and takes it back', async () => !(await ask('/v1/workers')).find(({ worker }) => worker === slot).draining && (await text('#rows tr:nth-child(2) .pill')) === 'ready');
  await click(`[aria-label^="Restart ${slot},"]`);
  await click('#ask-yes');
  await until('another one follows', async () => {
    const [found] = (await ask('/v1/workers')).filter(({ worker, draining, standing }) => worker === slot && !draining && standing === 'ready');
    return found && found.pid !== workers[1].pid && (await text('#rows')).includes(found.pid);
  });

  await click('#rolling');
  await click('#ask-yes');
  await until('all are followed', async () => (await text('#notes')).includes('all workers have been followed'));
  const pids = (await ask('/v1/workers')).filter(({ draining }) => !draining).map(({ pid }) => pid);
  result.followed = pids.length === workers.length && workers.every(({ pid }) => !pids.includes(pid));

  const opened = await (await fetch(new URL('/socket.io/?EIO=4&transport=polling', options.server))).text();
  const { sid } = JSON.parse(opened.slice(1));
  await evaluate(`document.querySelector('#session input').value = ${JSON.stringify(sid)}; document.querySelector('#session button').click()`);
  await until('a session is found', async () => / process \d+, has had it for \d+ s/.test(await text('#found')));
  await evaluate(`document.querySelector('#session input').value = ${JSON.stringify(SID)}; document.querySelector('#session button').click()`);
  await until('one that is not there is not', async () => (await text('#found')).includes(`\`${SID}\``));

  if (options.shots) {
    for (const [name, width, height, scheme] of [['wide-light', 1920, 1200, 'light'], ['wide-dark', 1920, 1200, 'dark'], ['narrow-light', 360, 800, 'light'], ['narrow-dark', 360, 800, 'dark']]) {
      await page('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
      await size(width, height);
      await sleep(1200);
      const { data } = await page('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true });
      fs.writeFileSync(path.join(options.shots, `${name}.png`), Buffer.from(data, 'base64'));
    }
  }
  await size(360, 800);
  result.wider = await evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth');
  await size(1440, 1000);

  // Whoever hears the page hears what each thing is that can be pressed or filled in.
  const { nodes } = await page('Accessibility.getFullAXTree');
  const handles = nodes.filter(({ ignored, role }) => !ignored && ['button', 'searchbox', 'textbox', 'link', 'table', 'image'].includes(role?.value));
  result.nameless = handles.filter(({ name }) => !name?.value).map(({ role }) => role.value);
  if (handles.length < 10) throw new Error(`where are they? ${JSON.stringify(handles)}`);

  stop();
  // Quiet: what the page says and what the interface says must be the same.
  result.figures = await until('the page agrees', async () => {
    const { figures, sessions, workers } = await ask('/v1/status');
    const said = await evaluate('Object.fromEntries([...document.querySelectorAll("#counted div")].map((row) => [row.querySelector("dt").textContent, Number(row.querySelector("dd").textContent.replaceAll(",", ""))]))');
    const shown = Object.entries(figures).every(([name, count]) => said[name.replaceAll('_', ' ')] === count);
    const off = await evaluate('[...document.querySelectorAll("#rows [data-label=\'Handed off\']")].map((cell) => Number(cell.textContent.replaceAll(",", "")))');
    const same = workers.every(({ handed_off: count }, at) => off[at] === count);
    return shown && same && Number(await tile(2)) === sessions && figures;
  });
  result.kept_rows = await evaluate('document.querySelectorAll("#tail li").length');
  finish(result.console.length === 0 && result.harmed === 0 && result.paused && result.kept && result.wider === 0 && result.followed && result.nameless.length === 0 && result.kept_rows <= 200);
})();
