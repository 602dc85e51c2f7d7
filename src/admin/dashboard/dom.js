// Elements, and numbers as people read them. Whatever comes from outside is text, never markup.

const SVG = 'http://www.w3.org/2000/svg';

export const $ = (id) => document.getElementById(id);

/** An element with a class, a text or children. */
export function make(tag, name = '', ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

/** The same of a picture. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Only what has changed is written: a screen reader and the layout hear of nothing else. */
export function say(element, text) {
  const said = String(text);
  if (element.textContent !== said) element.textContent = said;
}

/** Of what strangers have sent, as much as a line can bear. */
export function cut(text, most = 300) {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

const whole = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 });

export const number = (value) => whole.format(value);

/** Exact as long as there is room. */
export const brief = (value) => (value < 1e6 ? whole : short).format(value);

export function rate(value) {
  if (value === 0) return '0';
  return value < 9.95 ? value.toFixed(1) : brief(Math.round(value));
}

/** 3 d 4 h, 12 min 5 s: two units at most. */
export function span(seconds) {
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const from = Math.max(0, units.findIndex(([, size]) => seconds >= size));
  let rest = Math.max(0, Math.floor(seconds));
  const parts = units.slice(seconds < 1 ? 3 : from).map(([unit, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return [count, unit];
  });
  const told = parts.slice(0, 2).filter(([count], at) => count > 0 || at === 0);
  return told.map(([count, unit]) => `${count} ${unit}`).join(' ');
}

/** A colour of the palette: the same for a slot as long as the page is open, or a thousand others have come. */
const colours = new Map();
export function colour(slot) {
  if (colours.size > 1000) colours.clear();
  if (!colours.has(slot)) colours.set(slot, colours.size % 12);
  return `var(--series-${colours.get(slot)})`;
}
