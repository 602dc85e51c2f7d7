// The page: looks once a second, shows what it sees, and passes orders on.

import { $, brief, colour, draw, make, number, rate, say, span } from './dom.js';
import { about, ask, Refused } from './door.js';
import { Chart } from './chart.js';
import { Rates } from './rates.js';
import * as policy from './policy.js';
import * as tail from './tail.js';
import * as workers from './workers.js';

const LOOK = 1000;
/** How often the chart is told in words. */
const TOLD = 15_000;

const rates = new Rates();
const chart = new Chart($('chart'));
const restarts = [];
let status;
/** The chain of each pool. */
let chains = [];
let told = 0;

// ── Looking ──

async function look() {
  try {
    const [seen, asked] = await Promise.all([ask('/v1/status'), ask('/v1/policy')]);
    [status, chains] = [seen, asked.pools ?? [asked]];
    tail.of(chains.map(({ pool }) => pool));
    const now = Date.parse(status.now);
    if (rates.note(status)) restarts.push({ t: now, text: 'sidetrack restarted', short: 'new', kind: 'fell' });
    while (restarts.length > 20) restarts.shift();
    state('live', 'live');
    show(now);
  } catch (error) {
    if (error instanceof Refused) state('lost', error.message);
    else state('lost', 'no answer, trying again');
  }
}

async function keepLooking() {
  await look();
  // Behind the first look: if a token is needed, it is asked for once.
  tail.begin();
  for (;;) {
    const begun = performance.now();
    // Nobody looks, nobody asks.
    if (document.hidden) await new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
    await look();
    await new Promise((resolve) => setTimeout(resolve, Math.max(100, LOOK - (performance.now() - begun))));
  }
}

function state(kind, text) {
  $('link').dataset.state = kind;
  say($('link'), text);
  document.body.classList.toggle('lost', kind === 'lost');
}

// ── Showing ──

function show(now) {
  const second = rates.now;
  const slots = [...new Set(status.workers.map(({ worker }) => worker))];
  say($('run'), `${status.addresses.join('  ')} · ${status.version} · process ${status.pid} · up ${span(status.uptime_s)}`);
  turns();
  figures(second);
  legend(slots, second);
  // A slot that has gone is still in the last minutes.
  const past = new Set(slots);
  for (const { slots: then } of rates.seconds) then?.forEach((_, slot) => past.add(slot));
  chart.show(rates.seconds, [...chains.flatMap((chain) => policy.marks(chain, chains.length > 1)), ...restarts], [...past], now);
  if (now - told > TOLD && second) {
    told = now;
    const each = slots.map((slot) => `${slot} ${rate(second.slots.get(slot) ?? 0)}`).join(', ');
    chart.describe(`Decisions per second in the last five minutes; now ${rate(second.all)}: ${each}`);
  }
  policy.show(chains, now, back);
  workers.show(status, rates.workers, order);
  counted();
}

let restart = null;

/** How far a rolling restart has come, whoever has begun it; its end is said once, if it was seen to run. */
function turns() {
  const before = restart;
  restart = status.restart;
  const all = restart && restart.followed.length + restart.left.length;
  $('rolling').disabled = restart?.running || !status.workers.some(({ origin }) => origin === 'started');
  say($('rolling'), restart?.running ? `Restarting ${restart.followed.length + 1} of ${all}` : 'Rolling restart');
  if (!before?.running || restart?.running) return;
  if (restart?.failed) note(`${restart.failed.worker}: the new worker did not become ready (${restart.failed.reason}); the slot stays as it was, and so do those behind it`, true);
  else if (restart) note('all workers have been followed');
}

const tiles = new Map();

/** Label, what is large, what is small, and the line of the last minute. */
function figures(second) {
  const { workers: list, figures: all, sessions } = status;
  const faults = chains.flatMap(({ links }) => links).reduce((sum, link) => sum + policy.faults(link), 0);
  tile('Decisions per second', second ? rate(second.all) : '–', `${brief(all.handed_off)} in all`, (at) => at.all);
  tile('Sessions', brief(sessions), `${brief(all.sessions_opened)} opened`, (at) => at.figures.sessions_opened);
  tile('Open sockets', brief(list.reduce((sum, { sockets }) => sum + sockets, 0)), `${brief(all.accepted)} accepted`, (at) => at.figures.accepted);
  tile('Handed back', brief(all.handed_back), second ? `${rate(second.figures.handed_back)} per second` : '', (at) => at.figures.handed_back);
  tile('Refused', brief(all.refused), second ? `${rate(second.figures.refused)} per second` : '', (at) => at.figures.refused, all.refused > 0);
  tile('Policy faults', brief(faults), `${brief(all.rerouted)} rerouted`, undefined, faults > 0);
}

function tile(label, large, small, value, bad = false) {
  let one = tiles.get(label);
  if (!one) {
    one = { large: make('dd', 'large'), small: make('dd', 'small'), line: draw('path'), label };
    const spark = draw('svg', { class: 'spark', viewBox: '0 0 60 20', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, one.line);
    one.element = make('div', 'tile', make('dt', '', label), one.large, one.small);
    if (value) one.element.append(spark);
    $('figures').append(one.element);
    tiles.set(label, one);
  }
  say(one.large, large);
  say(one.small, small);
  one.element.classList.toggle('bad', bad);
  if (value) {
    const last = rates.seconds.slice(-60).map((at) => (at.hole ? 0 : value(at) ?? 0));
    const most = Math.max(1e-9, ...last);
    one.line.setAttribute('d', last.map((each, at) => `${at === 0 ? 'M' : 'L'}${at + 60 - last.length},${(18.5 - (each / most) * 17).toFixed(1)}`).join(''));
  }
}

const keys = new Map();

function legend(slots, second) {
  for (const slot of slots) {
    if (keys.has(slot)) continue;
    const swatch = make('i', 'swatch');
    swatch.style.background = colour(slot);
    const value = make('em');
    const item = make('li', '', swatch, slot, ' ', value);
    $('legend').append(item);
    keys.set(slot, { item, value });
  }
  for (const [slot, { item, value }] of keys) {
    if (slots.includes(slot)) say(value, second ? rate(second.slots.get(slot) ?? 0) : '');
    else {
      item.remove();
      keys.delete(slot);
    }
  }
}

const counters = new Map();

function counted() {
  for (const [name, count] of Object.entries(status.figures)) {
    if (!counters.has(name)) {
      const value = make('dd');
      $('counted').append(make('div', '', make('dt', '', name.replaceAll('_', ' ')), value));
      counters.set(name, value);
    }
    say(counters.get(name), number(count));
    counters.get(name).parentElement.classList.toggle('none', count === 0);
  }
}

// ── Orders ──

/** A line that says what came of an order, for a while. */
function note(text, bad = false) {
  const line = make('p', bad ? 'bad' : '', text);
  $('notes').append(line);
  while ($('notes').children.length > 4) $('notes').firstElementChild.remove();
  setTimeout(() => line.remove(), bad ? 12_000 : 6000);
}

/** Whether it is meant so. */
function sure(title, text, yes) {
  return new Promise((resolve) => {
    const dialog = $('ask');
    say($('ask-title'), title);
    say($('ask-text'), text);
    say($('ask-yes'), yes);
    const answer = (sure) => {
      dialog.close();
      resolve(sure);
    };
    $('ask-yes').onclick = () => answer(true);
    $('ask-no').onclick = () => answer(false);
    // With the escape key.
    dialog.oncancel = () => resolve(false);
    dialog.showModal();
  });
}

/** Does it and says what came of it, in words. */
async function carryOut(work) {
  try {
    note(await work());
    await look();
  } catch (error) {
    note(error.message, true);
  }
}

const to = (worker, verb) => ask(`/v1/workers/${encodeURIComponent(worker)}/${verb}`, {});

async function order(verb, { worker, pid }) {
  if (verb === 'restart') {
    const text = `A new process takes the slot of ${worker}. Process ${pid} gets nothing new, keeps its sessions, and leaves when they have ended.`;
    if (!(await sure(`Restart ${worker}?`, text, 'Restart'))) return;
  }
  const done = { drain: `${worker} is draining: nothing new goes there`, undrain: `${worker} takes part again`, restart: `somebody follows in ${worker}` };
  await carryOut(() => to(worker, verb).then(() => done[verb]));
}

async function back(link, pool) {
  const before = link.history[0];
  const text = `${link.name} goes from generation ${link.generation} back to what generation ${before.generation} was (${before.policy}). Sessions and connections stay.`;
  if (!(await sure(`Roll ${link.name} back?`, text, 'Roll back'))) return;
  await carryOut(async () => {
    const value = await ask(`/v1/policy/rollback${about(pool)}`, { link: link.name });
    return `${value.link} runs ${value.policy} as generation ${value.generation}; ${value.state}`;
  });
}

/** One slot after another, each when the one before has a worker that is ready. */
async function rolling() {
  const slots = [...new Set(status.workers.filter(({ origin }) => origin === 'started').map(({ worker }) => worker))];
  const text = `A new process takes the slot of each of ${slots.join(', ')} in turn; those before keep their sessions and leave when they have ended.`;
  if (!(await sure('Restart all workers?', text, 'Restart all'))) return;
  await carryOut(async () => {
    restart = await ask('/v1/workers/restart', {});
    return 'new workers follow, one after another';
  });
}

$('rolling').onclick = rolling;

$('session').onsubmit = async (event) => {
  event.preventDefault();
  const sid = new FormData(event.target).get('sid').trim();
  $('follow').hidden = true;
  try {
    const value = await ask(`/v1/sessions/${encodeURIComponent(sid)}`);
    say($('found'), `${value.worker}, process ${value.pid}, has had it for ${span(value.since_s)}`);
    $('follow').hidden = false;
    $('follow').onclick = () => tail.only(sid);
  } catch (error) {
    say($('found'), error.message);
  }
};

keepLooking();
