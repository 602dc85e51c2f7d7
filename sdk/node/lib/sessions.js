// The sessions of this process. The one place that knows which requests belong here.
'use strict';

const FORGET_AFTER = 30 * 60_000; // unless sidetrack says otherwise
const REPEAT_AFTER = 60_000;

exports.FORGET_AFTER = FORGET_AFTER;
exports.REPEAT_AFTER = REPEAT_AFTER;

/** `tell(message, written)` announces; `now()` is in milliseconds. */
exports.create = function ({ tell, now = Date.now }) {
  const open = new Set(); // sessions whose end we shall see
  const used = new Map(); // the others: id → { seen, told, busy }
  let ended = 0; // of the former
  let swept = now();
  let forgetAfter = FORGET_AFTER;

  /**
   * Takes a session as this process's own. `ends: false`: nobody will say when it ends, so it is
   * announced again while it is used and forgotten when it no longer is. Resolves once the
   * announcement is on its way: an answer that tells the client of the session may then leave.
   */
  function begin(sid, { ends = true } = {}) {
    if (open.has(sid) || (!ends && mine(sid))) return Promise.resolve();
    if (ends) {
      used.delete(sid);
      open.add(sid);
      return announce({ type: 'sidetrack:opened', sid });
    }
    sweep();
    used.set(sid, { seen: now(), told: now(), busy: 0 });
    return announce({ type: 'sidetrack:opened', sid, ends: false });
  }

  const announce = (message) => new Promise((written) => tell(message, written));

  function close(sid) {
    const lasted = open.delete(sid);
    if (lasted) ended++;
    if (lasted || used.delete(sid)) tell({ type: 'sidetrack:closed', sid });
  }

  /** Whether a session is this process's own until it is closed, however long nobody asks for it. */
  const lasting = (sid) => open.has(sid);

  /** Whether a request with this id belongs here. It counts as a use. */
  function mine(sid) {
    if (open.has(sid)) return true;
    const session = used.get(sid);
    if (session === undefined) return false;
    if (idle(session, now())) {
      used.delete(sid);
      return false;
    }
    touch(sid, session, now());
    return true;
  }

  /**
   * A request of the session is being answered, which may take hours: an event stream. Until the
   * function returned is called the session is in use, if nobody asks for it otherwise.
   */
  function use(sid) {
    const session = used.get(sid);
    if (session === undefined) return () => {};
    session.busy++;
    return () => {
      session.busy--;
      session.seen = now();
    };
  }

  /** To be called every minute or so: what is in use is announced again. */
  function refresh() {
    for (const [sid, session] of used) if (session.busy > 0) touch(sid, session, now());
  }

  const idle = ({ busy, seen }, at) => busy === 0 && at - seen > forgetAfter;

  function touch(sid, session, at) {
    session.seen = at;
    if (at - session.told < REPEAT_AFTER) return;
    session.told = at;
    tell({ type: 'sidetrack:opened', sid, ends: false });
  }

  // Those that nobody asks for any more would stay forever.
  function sweep() {
    const at = now();
    if (at - swept < REPEAT_AFTER) return;
    swept = at;
    for (const [sid, session] of used) if (idle(session, at)) used.delete(sid);
  }

  /** Announces all of them again, to a sidetrack that knows none. */
  function repeat() {
    for (const sid of open) tell({ type: 'sidetrack:opened', sid });
    const at = now();
    for (const [sid, session] of used) {
      if (idle(session, at)) continue;
      session.told = at;
      tell({ type: 'sidetrack:opened', sid, ends: false });
    }
  }

  /** After so many milliseconds without a use a session whose end nobody says is forgotten. */
  function remember(ms) {
    forgetAfter = ms;
  }

  // `ended()`: how many lasting sessions have ended. As long as that stays, none has.
  return { open: begin, close, own: mine, lasting, ended: () => ended, use, refresh, repeat, remember };
};
