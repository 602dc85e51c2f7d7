// What the three servers serve: a counter for each session, kept in this process alone. SESSIONS says
// how the client is told its id, and how it comes back.
'use strict';

const crypto = require('node:crypto');

const kind = process.env.SESSIONS;
const counters = new Map();

/** Begins a session: what the response says of it. */
exports.begin = async () => {
  const id = crypto.randomUUID();
  counters.set(id, 0);
  // Nothing in the response tells of an id that comes back in the query: the program says so.
  if (kind === 'query') await require('sidetrack-worker').sessions.open(id);
  return {
    headers: { ...(kind === 'header' && { 'X-Session': id }), ...(kind === 'cookie' && { 'Set-Cookie': `session=${id}; Path=/; HttpOnly` }) },
    body: { id },
  };
};

const idOf = ({ url, headers }) => ({
  query: () => new URL(url, 'http://x').searchParams.get('sid'),
  header: () => headers['x-session'],
  cookie: () => /session=([^;]+)/.exec(headers.cookie)?.[1],
})[kind]();

/** Counts one, and the bytes of the body. */
exports.count = (request, body) => {
  const id = idOf(request);
  if (!counters.has(id)) return { status: 404, body: { error: 'no such session' } };
  counters.set(id, counters.get(id) + 1);
  return { status: 200, body: { slot: process.env.SIDETRACK_SLOT, count: counters.get(id), bytes: body?.length ?? 0 } };
};

exports.end = async (request) => {
  const id = idOf(request);
  const known = counters.delete(id);
  if (known && kind === 'query') require('sidetrack-worker').sessions.close(id);
  return { status: known ? 204 : 404, headers: { ...(kind === 'cookie' && { 'Set-Cookie': 'session=; Max-Age=0' }) } };
};
