// Where a request carries its session id: the same rules as sidetrack's own (`src/session/key.rs`).
// No socket, no clock.
'use strict';

const LONGEST = 256; // bytes
const AND = '&'.charCodeAt();
const EQUALS = '='.charCodeAt();

/**
 * Reads `query:NAME`, `cookie:NAME`, `header:NAME` or `path:N`. The result finds the id in a request:
 * undefined when there is none, or when there is doubt which it is. It has the `kind` and the `key`, the name or number.
 */
exports.finder = function (key) {
  const [, kind, name] = /^(query|cookie|header|path):(.+)$/s.exec(key) ?? [];
  if (!kind || (kind === 'path' && !(Number.isInteger(Number(name)) && Number(name) > 0))) {
    throw new Error(`SIDETRACK_SESSION_KEY: expected query:NAME, cookie:NAME, header:NAME or path:N, found "${key}"`);
  }
  return Object.assign(FINDERS[kind](name), { kind, key: name });
};

const FINDERS = {
  query(name) {
    const plain = /^[\w.~-]+$/.test(name);
    return ({ url }) => {
      const at = url.indexOf('?');
      if (at < 0) return undefined;
      // Most requests carry none, and most are written as plainly as can be.
      if (plain) {
        const encoded = url.indexOf('%', at) >= 0;
        if (!encoded && url.indexOf(name, at) < 0) return undefined;
        if (!encoded && url.indexOf('+', at) < 0 && url.indexOf('#', at) < 0) return plainly(url, name, at);
      }
      const values = [];
      for (const pair of url.slice(at + 1).split('#', 1)[0].split('&')) {
        const equals = pair.indexOf('=');
        if (formDecoded(equals < 0 ? pair : pair.slice(0, equals)) !== name) continue;
        values.push(equals < 0 ? '' : formDecoded(pair.slice(equals + 1)));
      }
      return theOne(values);
    };
  },

  cookie(name) {
    return ({ headers: { cookie } }) => {
      if (cookie === undefined || !cookie.includes(name)) return undefined;
      const values = [];
      for (const pair of cookie.split(';')) {
        const equals = pair.indexOf('=');
        if (equals >= 0 && pair.slice(0, equals).trim() === name) values.push(decoded(pair.slice(equals + 1).trim()));
      }
      return theOne(values);
    };
  },

  header(name) {
    const lower = name.toLowerCase();
    return ({ headers, rawHeaders }) => {
      if (headers[lower] === undefined) return undefined;
      // Node joins duplicates, or keeps the first: the raw ones tell.
      const values = [];
      for (let i = 0; i < rawHeaders.length; i += 2) {
        if (rawHeaders[i].toLowerCase() === lower) values.push(utf8(rawHeaders[i + 1]));
      }
      return theOne(values);
    };
  },

  path(number) {
    return ({ url }) => {
      const [target] = url.replace(/^[^/?]*:\/\/[^/?]*/, '').split('?', 1);
      const segment = target.split('/')[Number(number)];
      return segment ? theOne([decoded(segment)]) : undefined;
    };
  },
};

/** The same where nothing is percent-encoded. */
function plainly(url, name, at) {
  let found;
  for (let i = at; (i = url.indexOf(name, i)) >= 0; i++) {
    if (i - 1 !== at && url.charCodeAt(i - 1) !== AND) continue;
    const end = i + name.length;
    const after = end < url.length ? url.charCodeAt(end) : AND;
    if (after !== EQUALS && after !== AND) continue;
    const next = url.indexOf('&', end);
    const value = url.slice(after === EQUALS ? end + 1 : end, next < 0 ? url.length : next);
    if (found !== undefined && value !== found) return undefined;
    found = value;
  }
  if (!found) return undefined;
  return found.length > LONGEST || /[^\x00-\x7f]/.test(found) ? theOne([utf8(found)]) : found;
}

/** The one value all of them agree on. */
function theOne(values) {
  const [first] = values;
  if (!first || first.includes('\ufffd') || Buffer.byteLength(first) > LONGEST) return undefined;
  for (const value of values) if (value !== first) return undefined;
  return first;
}

const formDecoded = (text) => decoded(text.includes('+') ? text.replace(/\+/g, ' ') : text);

// A `%` that begins nothing stays, as in URLSearchParams.
function decoded(text) {
  return text.includes('%')
    ? utf8(text.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16))))
    : utf8(text);
}

// Node's strings of a request head hold one byte in each character.
const utf8 = (text) => (/[^\x00-\x7f]/.test(text) ? Buffer.from(text, 'latin1').toString() : text);

exports.decoded = decoded;
