// The live tail: connections as they are decided, with the reasons. Followed only while somebody looks.

import { $, colour, cut, make, number, say } from './dom.js';
import { follow } from './door.js';

/** Rows that are kept; older ones go. */
const MOST = 200;
/** Nobody reads more in a second. With a filter all come, and the page looks through them. */
const RATE = 25;
/** How often what has come is shown. */
const TURN = 200;
/** Between a stream that ended and the next. */
const AGAIN = 1500;

/** One of several; with one alone it has no name. */
let pools = [undefined];
let begun = false;
let waiting = [];
let left = 0;
let paused = false;
let following;

export function begin() {
  const [pause, filter] = [$('pause'), $('filter')];
  pause.onclick = () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', paused);
    say(pause, paused ? 'Go on' : 'Pause');
    restart();
  };
  let soon;
  filter.oninput = () => {
    clearTimeout(soon);
    soon = setTimeout(() => {
      sift();
      restart();
    }, 250);
  };
  document.addEventListener('visibilitychange', restart);
  setInterval(turn, TURN);
  begun = true;
  restart();
}

/** Whose decisions there are. */
export function of(names) {
  const same = names.length === pools.length && names.every((name, at) => name === pools[at]);
  pools = names;
  if (begun && !same) restart();
}

/** Only what concerns this, from now on. */
export function only(text) {
  $('filter').value = text;
  sift();
  if (paused) $('pause').click();
  else restart();
}

const wanted = () => $('filter').value.trim().toLowerCase();

function restart() {
  following?.abort();
  if (paused || document.hidden) {
    say($('tail-state'), paused ? 'paused' : '');
    return;
  }
  following = new AbortController();
  left = 0;
  for (const pool of pools) keepFollowing(pool, following.signal);
}

async function keepFollowing(pool, signal) {
  const query = new URLSearchParams({ form: 'full', steps: true, headers: false });
  if (!wanted()) query.set('rate', RATE);
  if (pool !== undefined) query.set('pool', pool);
  while (!signal.aborted) {
    try {
      const workers = { names: new Map(), roster: [] };
      await follow(`/v1/decisions?${query}`, signal, (lines) => lines.forEach((line) => hear(line, workers)));
    } catch (error) {
      if (signal.aborted) return;
      say($('tail-state'), error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}

function hear(line, workers) {
  let entry;
  try {
    entry = JSON.parse(line);
  } catch {
    return;
  }
  if (entry.roster) {
    workers.roster = entry.roster.map(({ name }) => name);
    workers.names = new Map(entry.roster.map(({ id, name }) => [id, name]));
  } else if (entry.gap) {
    left += entry.gap;
  } else if (typeof entry.u === 'string' && !entry.hand) {
    const decision = read(entry, workers);
    if (!wanted() || decision.words.includes(wanted())) waiting.push(decision);
    // What is waiting longer than a turn is older than what will be shown.
    if (waiting.length > MOST) waiting = waiting.slice(-MOST);
  }
}

/** The workers as they are named when it is heard: one may have gone by the time the row is made. */
function read(entry, { names, roster }) {
  const name = (id) => names.get(id) ?? `worker ${id}`;
  const worker = entry.w === undefined ? undefined : name(entry.w);
  const went = worker ?? (entry.x ? `refused ${entry.x.refuse}` : 'nobody');
  const how = entry.k ? `${entry.k}${entry.g ? ` g${entry.g}` : ''}` : entry.o !== undefined ? 'session table' : '';
  const request = `${entry.m ?? 'GET'} ${entry.u}`;
  const words = [went, how, request, entry.s ?? '', entry.p ?? ''].join('\n').toLowerCase();
  return { entry, name, worker, went, how, request, words, at: new Date(), loads: entry.l.map((load, at) => `${roster[at] ?? '?'} ${load}`) };
}

function turn() {
  if (paused || document.hidden) return;
  const rows = waiting.map(row).reverse();
  waiting = [];
  const list = $('tail');
  if (rows.length > 0) {
    // Whoever reads further down is not pushed on.
    const [height, top] = [list.scrollHeight, list.scrollTop];
    list.prepend(...rows);
    while (list.children.length > MOST) list.lastElementChild.remove();
    if (top > 0) list.scrollTop = top + list.scrollHeight - height;
  }
  if (following && !following.signal.aborted) {
    say($('tail-state'), left > 0 ? `a sample; ${number(left)} not shown` : list.children.length ? '' : 'waiting for connections');
  }
}

/** Rows that do not fit the filter go. */
function sift() {
  for (const row of [...$('tail').children]) {
    if (wanted() && !row.dataset.words.includes(wanted())) row.remove();
  }
}

const time = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });

function row({ entry, name, worker, went, how, request, words, at, loads }) {
  const chip = make('b', worker ? 'to' : 'to refused', went);
  if (worker) chip.style.setProperty('--slot', colour(worker));
  const summary = make('summary', '', make('time', '', time.format(at)), make('code', 'request', cut(request)), chip);
  if (how) summary.append(make('span', 'how', how));
  const why = make('dl', 'why');
  const fact = (term, ...children) => why.append(make('dt', '', term), make('dd', '', ...children));
  fact('request', make('code', '', cut(request, 2000)));
  if (entry.p) fact('from', entry.p);
  if (entry.s) fact('session', make('code', '', entry.s));
  if (entry.a) fact('attempt', String(entry.a + 1));
  if (entry.x) fact('refused', `${entry.x.refuse} ${cut(entry.x.text)}`);
  if (entry.o !== undefined) fact('session table', name(entry.o));
  for (const step of entry.steps ?? []) {
    fact(step.link, `${step.generation ? `generation ${step.generation}` : 'native'} → ${said(step.said, name)}${step.why ? `: ${cut(step.why)}` : ''}`);
  }
  if (entry.n) fact('took', `${number(Math.round(entry.n / 100) / 10)} µs`);
  fact('loads', loads.join(', '));
  const item = make('li', '', make('details', '', summary, why));
  item.dataset.words = words;
  return item;
}

function said(said, name) {
  if (said === null) return 'failed';
  if (typeof said === 'number') return name(said);
  return typeof said === 'string' ? said : `refuse with ${said.refuse} ${cut(said.text)}`;
}
