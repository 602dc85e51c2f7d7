// The sessions of this process. The one place that knows which requests belong here.
'use strict';

const FORGET_AFTER = 30 * 60_000;
const REPEAT_AFTER = 60_000;

/** `tell(message, written)` announces; `now()` is in milliseconds. */
exports.create = function ({ tell, now = Date.now }) {
  const open = new Set(); // sessions whose end we shall see
  const used = new Map(); // the others: id → { seen, told }
  let swept = now();

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
    used.set(sid, { seen: now(), told: now() });
    return announce({ type: 'sidetrack:opened', sid, ends: false });
  }

  const announce = (message) => new Promise((written) => tell(message, written));

  function close(sid) {
    const known = open.delete(sid) || used.delete(sid);
    if (known) tell({ type: 'sidetrack:closed', sid });
  }

  /** Whether a request with this id belongs here. It counts as a use. */
  function mine(sid) {
    if (open.has(sid)) return true;
    const session = used.get(sid);
    if (session === undefined) return false;
    const at = now();
    if (at - session.seen > FORGET_AFTER) {
      used.delete(sid);
      return false;
    }
    session.seen = at;
    if (at - session.told >= REPEAT_AFTER) {
      session.told = at;
      tell({ type: 'sidetrack:opened', sid, ends: false });
    }
    return true;
  }

  // Those that nobody asks for any more would stay forever.
  function sweep() {
    const at = now();
    if (at - swept < REPEAT_AFTER) return;
    swept = at;
    for (const [sid, { seen }] of used) if (at - seen > FORGET_AFTER) used.delete(sid);
  }

  /** Announces all of them again, to a sidetrack that knows none. */
  function repeat() {
    for (const sid of open) tell({ type: 'sidetrack:opened', sid });
    const at = now();
    for (const [sid, session] of used) {
      if (at - session.seen > FORGET_AFTER) continue;
      session.told = at;
      tell({ type: 'sidetrack:opened', sid, ends: false });
    }
  }

  return { open: begin, close, own: mine, repeat };
};
