// Which requests are for this worker's pool, by host and path: the same rules as sidetrack's own
// (`sdk/worker/src/matches.rs`). No socket, no clock.
'use strict';

/**
 * Reads `-/socket.io +example.com -`: matches of all pools, own ones behind a plus, of which the first
 * that fits counts. The result tells whether a request is for this worker's pool.
 */
exports.reader = function (text) {
  const matches = text.trim().split(/\s+/).map(one);
  const byHost = matches.some(({ host }) => host !== '');
  return ({ url, headers }) => {
    const host = byHost ? hostOf(url, headers) : '';
    const path = pathOf(url);
    return matches.find((match) => fits(match, host, path))?.own ?? true;
  };
};

function one(word) {
  const slash = word.indexOf('/');
  const end = slash < 0 ? word.length : slash;
  const host = word.slice(1, end);
  // `*.example.com` is kept as what a host must end in.
  return { own: word[0] === '+', host: host.startsWith('*') ? host.slice(1) : host, path: word.slice(end) };
}

function fits(match, host, path) {
  if (match.host.startsWith('.')) {
    if (host.length <= match.host.length || !host.endsWith(match.host)) return false;
  } else if (match.host !== '' && host !== match.host) {
    return false;
  }
  // A path ends where a segment does.
  const end = match.path.length;
  return end === 0 || (path.startsWith(match.path) && (path.length === end || path[end] === '/'));
}

// An absolute target counts before the header.
function hostOf(url, { host = '' }) {
  const authority = /^[^/?]*:\/\/([^/?]*)/.exec(url)?.[1] || host;
  const name = authority.slice(authority.lastIndexOf('@') + 1).trim().toLowerCase();
  return name.replace(/(^[^:]*|\]):\d*$/, '$1').replace(/\.$/, '');
}

function pathOf(url) {
  const query = url.indexOf('?');
  const path = query < 0 ? url : url.slice(0, query);
  return path.startsWith('/') ? path : path.replace(/^[^/]*:\/\/[^/]*/, '');
}
