// What sidetrack says about a worker's surroundings: in its environment, or in the answer to a join.
'use strict';

const { finder } = require('./key');
const { reader } = require('./matches');
const { FORGET_AFTER } = require('./sessions');

exports.fromEnv = ({ SIDETRACK_SESSION_KEY: key, SIDETRACK_KEEPALIVE: keepAlive, SIDETRACK_SESSION_IDLE: idle, SIDETRACK_SID_TAG: tag, SIDETRACK_MATCHES: matches }) =>
  terms({ key, keepAlive, idle, tag, matches });

exports.fromAnswer = ({ session_key: key, keepalive: keepAlive, session_idle: idle, sid_tag: tag, matches }) =>
  terms({ key, keepAlive, idle, tag, matches });

/**
 * Throws when the session key makes no sense. `tag` is undefined where ids are not to be tagged, and
 * `isOwn` where all requests are for this worker's pool.
 */
function terms({ key, keepAlive, idle, tag, matches }) {
  return {
    find: finder(key || 'query:sid'),
    keepAlive: keepAlive || 'hand-back',
    forgetAfter: milliseconds(idle),
    tag: typeof tag === 'string' && tag ? tag : undefined,
    isOwn: typeof matches === 'string' && matches ? reader(matches) : undefined,
  };
}

/** Of a whole number of seconds above 0; the default for anything else, which is no reason not to serve. */
function milliseconds(seconds) {
  const sound = ['string', 'number'].includes(typeof seconds) && /^0*[1-9]\d*$/.test(seconds);
  return sound ? Number(seconds) * 1000 : FORGET_AFTER;
}

/** The id that a new session shall have instead of this one: it begins with the tag, once. */
exports.tagged = (tag, id) => (tag === undefined || String(id).startsWith(`${tag}.`) ? id : `${tag}.${id}`);
