// Sessions that are not Engine.IO's, learnt from the worker's own responses: a header such as
// `Mcp-Session-Id`, a cookie, or a segment of the path.
'use strict';

const { decoded } = require('./key');

/**
 * Learns from responses. `terms` may change at any time: another sidetrack may have others. `begin` wants
 * to be told of requests that sidetrack knows no better worker for, before they are answered, and
 * `answering` of every request with its response.
 */
exports.learn = function ({ terms, sessions }) {
  let find;
  let learning;
  function lessons() {
    if (find !== terms.find) {
      find = terms.find;
      learning = LEARN[find.kind]?.(find, sessions) ?? {};
    }
    return learning;
  }
  function answering(request, response) {
    const { learn } = lessons();
    if (!learn) return;
    const asked = find(request);
    if (asked !== undefined) response.once('close', sessions.use(asked));
    // Node calls it for every response, asked or not. Then the head is made, and has not left.
    const { writeHead } = response;
    response.writeHead = function () {
      const result = writeHead.apply(this, arguments);
      learn(request, this);
      return result;
    };
  }
  return { answering, begin: (request) => lessons().begin?.(request) };
};

const LEARN = {
  header(find, sessions) {
    const line = new RegExp(`\\r\\n${escaped(find.key)}: *([^\\r\\n]*)`, 'i');
    return {
      // A 404 says nothing: a session may well ask for what does not exist. One that is no more
      // goes on getting its 404 here.
      learn(request, { statusCode, _header: head }) {
        const asked = find(request);
        const ended = request.method === 'DELETE' && statusCode >= 200 && statusCode < 300;
        if (asked !== undefined && ended) return sessions.close(asked);
        const [, sid] = line.exec(head) ?? [];
        if (sid) sessions.open(sid.trim(), { ends: false });
      },
    };
  },

  cookie(find, sessions) {
    const lines = new RegExp(`\\r\\nSet-Cookie: *${escaped(find.key)}=([^;\\r\\n]*)([^\\r\\n]*)`, 'gi');
    return {
      learn(request, { _header: head }) {
        for (const [, value, attributes] of head.matchAll(lines)) {
          const sid = decoded(value.trim());
          if (sid && !expired(attributes)) sessions.open(sid, { ends: false });
          else close(find(request));
        }
      },
    };
    function close(sid) {
      if (sid !== undefined) sessions.close(sid);
    }
  },

  // The client makes the id, and the worker that serves it first has the session, unless all it has
  // to say is that there is nothing.
  path(find, sessions) {
    const begun = new WeakMap(); // request → id
    return {
      begin(request) {
        const sid = find(request);
        if (sid === undefined || sessions.own(sid)) return;
        begun.set(request, sid);
        sessions.open(sid, { ends: false });
      },
      learn(request, { statusCode }) {
        if (statusCode === 404 && begun.has(request)) sessions.close(begun.get(request));
      },
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
