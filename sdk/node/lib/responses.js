// Sessions that are not Engine.IO's, learnt from the worker's own responses: a header such as
// `Mcp-Session-Id`, a cookie, or a segment of the path.
'use strict';

const diagnostics = require('diagnostics_channel');
const { decoded } = require('./key');

// Held because a diagnostics channel that nobody holds is collected, with its subscribers.
const requests = diagnostics.channel('http.server.request.start');

/** `terms` may change at any time: another sidetrack may have others. */
exports.watch = function ({ terms, sessions }) {
  let find;
  let learn;
  requests.subscribe(({ request, response }) => {
    if (find !== terms.find) {
      find = terms.find;
      learn = LEARN[find.kind]?.(find, sessions);
    }
    if (!learn) return;
    // Node calls it for every response, asked or not. Then the head is made, and has not left.
    const { writeHead } = response;
    response.writeHead = function () {
      const result = writeHead.apply(this, arguments);
      learn(request, this);
      return result;
    };
  });
};

const LEARN = {
  header(find, sessions) {
    const line = new RegExp(`\\r\\n${escaped(find.key)}: *([^\\r\\n]*)`, 'i');
    return (request, response) => {
      const asked = find(request);
      const { statusCode } = response;
      const ended = statusCode === 404 || (request.method === 'DELETE' && statusCode >= 200 && statusCode < 300);
      if (asked !== undefined && ended) return sessions.close(asked);
      const [, sid] = line.exec(response._header) ?? [];
      if (sid) sessions.open(sid.trim(), { ends: false });
    };
  },

  cookie(find, sessions) {
    const lines = new RegExp(`\\r\\nSet-Cookie: *${escaped(find.key)}=([^;\\r\\n]*)([^\\r\\n]*)`, 'gi');
    return (request, response) => {
      for (const [, value, attributes] of response._header.matchAll(lines)) {
        const sid = decoded(value.trim());
        if (sid && !expired(attributes)) sessions.open(sid, { ends: false });
        else close(find(request));
      }
    };
    function close(sid) {
      if (sid !== undefined) sessions.close(sid);
    }
  },

  // The client makes the id, and the worker that serves it first has the session (see http.js).
  path(find, sessions) {
    return (request, { statusCode }) => {
      const asked = statusCode === 404 ? find(request) : undefined;
      if (asked !== undefined) sessions.close(asked);
    };
  },
};

/** Whether a cookie's attributes make the client forget it. */
function expired(attributes) {
  const [, age] = /;\s*Max-Age=\s*(-?\d+)/i.exec(attributes) ?? [];
  if (age !== undefined) return Number(age) <= 0;
  const [, date] = /;\s*Expires=\s*([^;]+)/i.exec(attributes) ?? [];
  return date !== undefined && Date.parse(date) <= Date.now();
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
