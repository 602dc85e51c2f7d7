// The table of workers. Rows stay the elements they are, so that a focus is not lost every second.

import { $, brief, colour, make, number, rate, say, span } from './dom.js';
import { key } from './rates.js';

const rows = new Map();

/** What a person sees of a standing, and how it looks. */
function standing(worker) {
  if (worker.draining) return ['draining', 'warn'];
  return [worker.standing, { ready: 'good', unresponsive: 'bad' }[worker.standing] ?? 'warn'];
}

/** Workers, what each gets in a second by its key, and whom to tell of orders. */
export function show(status, rates, order) {
  const { workers } = status;
  const most = Math.max(1, ...workers.map(({ load }) => load));
  const seen = new Set();
  const twins = new Map();
  for (const { worker } of workers) twins.set(worker, (twins.get(worker) ?? 0) + 1);
  for (const worker of workers) {
    seen.add(key(worker));
    const row = rows.get(key(worker)) ?? begin(worker);
    const [text, kind] = standing(worker);
    say(row.standing, text);
    row.standing.className = `pill ${kind}`;
    say(row.rate, rates.has(key(worker)) ? rate(rates.get(key(worker))) : '–');
    say(row.load, number(worker.load));
    row.bar.style.width = `${(worker.load / most) * 100}%`;
    say(row.sessions, number(worker.sessions));
    say(row.sockets, number(worker.sockets));
    say(row.way, worker.queued ? `${number(worker.unacknowledged)} + ${number(worker.queued)} waiting` : number(worker.unacknowledged));
    say(row.off, brief(worker.handed_off));
    say(row.back, brief(worker.handed_back));
    say(row.up, worker.ready_s === null ? '–' : span(worker.ready_s));
    say(row.drain, worker.draining ? 'Undrain' : 'Drain');
    row.drain.setAttribute('aria-label', `${worker.draining ? 'Undrain' : 'Drain'} ${worker.worker}, process ${worker.pid}`);
    row.drain.onclick = () => order(worker.draining ? 'undrain' : 'drain', worker);
    row.restart.onclick = () => order('restart', worker);
    // The one that leaves cannot be restarted: somebody follows already.
    const leaving = worker.draining && twins.get(worker.worker) > 1;
    row.restart.disabled = worker.origin !== 'started' || leaving;
    row.drain.disabled = leaving;
  }
  for (const [own, { element }] of rows) {
    if (!seen.has(own)) {
      element.remove();
      rows.delete(own);
    }
  }
  const list = $('rows');
  workers.forEach((worker, at) => {
    const { element } = rows.get(key(worker));
    if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
  });
  const ready = workers.filter((worker) => worker.standing === 'ready' && !worker.draining).length;
  say($('workers-summary'), workers.length === ready ? `${ready} ready` : `${ready} of ${workers.length} ready`);
}

function begin(worker) {
  const swatch = make('i', 'swatch');
  swatch.style.background = colour(worker.worker);
  const name = make('th', 'name', swatch, make('b', '', worker.worker), ' ', make('small', '', `${worker.pid}${worker.origin === 'joined' ? ', joined' : ''}`));
  name.scope = 'row';
  const labels = Object.entries(worker.labels).map(([key, value]) => `${key}=${value}`);
  if (worker.weight !== 1) labels.unshift(`weight ${worker.weight}`);
  if (labels.length) name.append(make('small', 'labels', labels.join(' · ')));
  const row = { standing: make('span', 'pill'), load: make('span'), bar: make('i') };
  row.bar.style.background = colour(worker.worker);
  const element = make('tr', '', name);
  const cell = (label, kind, ...children) => {
    const cell = make('td', kind, ...children);
    cell.dataset.label = label;
    element.append(cell);
    return cell;
  };
  cell('Standing', '', row.standing);
  row.rate = cell('Per second', 'n');
  cell('Load', 'load', make('span', 'track', row.bar), row.load);
  row.sessions = cell('Sessions', 'n');
  row.sockets = cell('Sockets', 'n');
  row.way = cell('On the way', 'n');
  row.off = cell('Handed off', 'n');
  row.back = cell('Handed back', 'n');
  row.up = cell('Up', 'n');
  row.drain = make('button', 'small');
  row.restart = make('button', 'small', 'Restart');
  row.restart.setAttribute('aria-label', `Restart ${worker.worker}, process ${worker.pid}`);
  cell('', 'actions', row.drain, row.restart);
  row.element = element;
  rows.set(key(worker), row);
  return row;
}
