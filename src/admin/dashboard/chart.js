// The flow of decisions: one band for each slot, and a mark where a policy took over.

import { colour, draw, make, rate, span } from './dom.js';

/** Minutes in view: it widens with what there is to see. */
const WIDTHS = [1, 2, 3, 5];
/** Where the axis is told, in minutes ago. */
const TIMES = { 1: [1, 0.5, 0], 2: [2, 1, 0], 3: [3, 2, 1, 0], 5: [5, 4, 3, 2, 1, 0] };
const SIDE = { left: 46, right: 12, top: 26, bottom: 26 };

export class Chart {
  #place;
  #svg = draw('svg', { role: 'img', class: 'chart' });
  #readout = make('p', 'readout');
  #state;
  #pointed;

  constructor(place) {
    this.#place = place;
    this.#readout.hidden = true;
    place.append(this.#svg, this.#readout);
    place.onpointermove = ({ clientX }) => this.#point(clientX - place.getBoundingClientRect().left);
    place.onpointerleave = () => this.#point();
    new ResizeObserver(() => this.#state && this.#draw()).observe(place);
  }

  /** Seconds as of `Rates`, marks `{ t, text, short, kind }`, slots in order, and the present. */
  show(seconds, marks, slots, now) {
    this.#state = { seconds, marks, slots, now };
    this.#draw();
  }

  #point(x) {
    this.#pointed = x;
    if (this.#state) this.#draw();
  }

  #draw() {
    const { seconds, marks, slots, now } = this.#state;
    const width = Math.max(240, this.#place.clientWidth);
    const height = this.#place.clientHeight;
    const [left, right, top, bottom] = [SIDE.left, width - SIDE.right, SIDE.top, height - SIDE.bottom];
    const ticks = nice(Math.max(0, ...seconds.map(({ all }) => all ?? 0)));
    const highest = ticks.at(-1);
    const there = (now - (seconds[0]?.t ?? now)) / 60_000;
    const view = WIDTHS.find((minutes) => there <= minutes) ?? WIDTHS.at(-1);
    const x = (t) => right - ((now - t) / 60_000 / view) * (right - left);
    const y = (value) => bottom - (value / highest) * (bottom - top);

    const parts = ticks.map((tick) => draw('g', { class: 'tick' },
      draw('line', { x1: left, x2: right, y1: y(tick), y2: y(tick) }),
      draw('text', { x: left - 8, y: y(tick) + 4, 'text-anchor': 'end' }, rate(tick))));
    for (const minute of TIMES[view]) {
      const anchor = minute === 0 ? 'end' : minute === view ? 'start' : 'middle';
      const text = minute === 0 ? 'now' : minute < 1 ? `${minute * 60} s` : `${minute} min`;
      parts.push(draw('text', { x: x(now - minute * 60_000), y: height - 7, 'text-anchor': anchor }, text));
    }
    parts.push(...bands(seconds, slots, x, y, left));
    parts.push(...flags(marks, x, left, right, top, bottom));
    parts.push(...this.#pointer(seconds, slots, x, y, left, right));
    this.#svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.#svg.replaceChildren(...parts);
  }

  /** In words, now and then: a picture says nothing to who cannot see it. */
  describe(text) {
    this.#svg.setAttribute('aria-label', text);
  }

  #pointer(seconds, slots, x, y, left, right) {
    this.#readout.hidden = true;
    if (this.#pointed === undefined || seconds.length === 0) return [];
    const near = (second) => Math.abs(x(second.t) - this.#pointed);
    const second = seconds.reduce((best, other) => (near(other) < near(best) ? other : best));
    if (second.hole || near(second) > 12) return [];
    const at = x(second.t);
    const ago = Math.round((this.#state.now - second.t) / 1000);
    this.#readout.replaceChildren(make('b', '', `${rate(second.all)} per second`), ago < 2 ? ' now' : ` ${span(ago)} ago`);
    for (const slot of slots.slice(0, 12)) {
      const swatch = make('i');
      swatch.style.background = colour(slot);
      this.#readout.append(make('span', '', swatch, slot, ' ', make('em', '', rate(second.slots.get(slot) ?? 0))));
    }
    this.#readout.hidden = false;
    const before = at > (left + right) / 2;
    this.#readout.style.left = before ? 'auto' : `${at + 12}px`;
    this.#readout.style.right = before ? `${this.#place.clientWidth - at + 12}px` : 'auto';
    return [draw('line', { class: 'pointer', x1: at, x2: at, y1: y(0), y2: SIDE.top })];
  }
}

/** Bands on top of each other, with holes where nobody looked. */
function bands(seconds, slots, x, y, left) {
  const runs = [];
  let run;
  for (const second of seconds) {
    if (second.hole) run = undefined;
    else if (run) run.push(second);
    else runs.push((run = [second]));
  }
  const parts = [];
  for (const run of runs) {
    const below = run.map(() => 0);
    for (const slot of slots) {
      const lower = run.map((second, at) => `${fixed(Math.max(left, x(second.t)))},${fixed(y(below[at]))}`);
      run.forEach((second, at) => { below[at] += second.slots.get(slot) ?? 0; });
      const upper = run.map((second, at) => `${fixed(Math.max(left, x(second.t)))},${fixed(y(below[at]))}`);
      const band = draw('path', { class: 'band', d: `M${upper.join('L')}L${lower.reverse().join('L')}Z` });
      const edge = draw('path', { class: 'edge', d: `M${upper.join('L')}` });
      band.style.fill = edge.style.stroke = colour(slot);
      parts.push(band, edge);
    }
  }
  return parts;
}

/** Where a version took over. The latest are told first, in full, in short, or not at all where there is no room. */
function flags(marks, x, left, right, top, bottom) {
  const seen = marks.filter(({ t }) => x(t) >= left && x(t) <= right).sort((a, b) => b.t - a.t);
  const taken = seen.map(({ t }) => [x(t) - 5, x(t) + 5]);
  const label = (place, text) => {
    const room = 7.2 * text.length;
    for (const [from, anchor] of [[place + 8, 'start'], [place - 8 - room, 'end']]) {
      const to = from + room;
      if (from < left || to > right || taken.some(([begin, end]) => from < end && begin < to)) continue;
      taken.push([from, to]);
      return draw('text', { x: anchor === 'start' ? from : to, y: top - 3, 'text-anchor': anchor }, text);
    }
    return undefined;
  };
  return seen.map(({ t, text, short, kind }) => {
    const place = x(t);
    const told = label(place, text) ?? label(place, short);
    return draw('g', { class: `mark ${kind}` },
      draw('title', {}, text),
      draw('line', { x1: place, x2: place, y1: top - 4, y2: bottom }),
      draw('circle', { cx: place, cy: top - 7, r: 3.5 }),
      ...(told ? [told] : []));
  });
}

/** Round numbers from 0 to above the highest. */
function nice(highest) {
  const rough = Math.max(highest * 1.08, 3) / 3;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((factor) => factor * size).find((step) => step >= rough);
  return [0, step, 2 * step, 3 * step];
}

const fixed = (value) => value.toFixed(1);
