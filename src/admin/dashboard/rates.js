// Figures into rates, and the last minutes of them: so many seconds, never more.

/** Seconds that are kept and shown. */
export const WINDOW = 300;

/** A longer silence is a hole in the picture, not a slope; a shorter one is too short for a rate. */
const HOLE = 4;
const SHORTEST = 0.5;

/** A worker among all of all pools, which number theirs each for itself. */
export const key = ({ worker, id }) => `${worker} ${id}`;

export class Rates {
  /** `{ t, slots: Map, all, figures: {} }`, or `{ t, hole: true }`; `t` in milliseconds of sidetrack's clock. */
  seconds = [];
  /** The latest of each worker, by its key. */
  workers = new Map();
  #before;

  /** What has happened between two looks. True when another sidetrack answers. */
  note(status) {
    const t = Date.parse(status.now);
    const before = this.#before;
    const run = `${status.pid} ${status.since}`;
    const again = before !== undefined && before.run !== run;
    const passed = before ? (t - before.t) / 1000 : 0;
    if (before && !again && passed >= 0 && passed < SHORTEST) return false;
    this.#before = { t, status, run };
    if (!before) return false;
    this.workers = new Map();
    if (again || passed < 0 || passed > HOLE) {
      this.#keep({ t, hole: true });
      return again;
    }
    const then = new Map(before.status.workers.map((worker) => [key(worker), worker.handed_off]));
    const slots = new Map();
    let all = 0;
    for (const worker of status.workers) {
      const rate = Math.max(0, worker.handed_off - (then.get(key(worker)) ?? 0)) / passed;
      this.workers.set(key(worker), rate);
      slots.set(worker.worker, (slots.get(worker.worker) ?? 0) + rate);
      all += rate;
    }
    const figures = {};
    for (const [name, count] of Object.entries(status.figures)) {
      figures[name] = Math.max(0, count - (before.status.figures[name] ?? 0)) / passed;
    }
    this.#keep({ t, slots, all, figures });
    return false;
  }

  /** The latest, if it is one. */
  get now() {
    const last = this.seconds.at(-1);
    return last && !last.hole ? last : undefined;
  }

  #keep(second) {
    this.seconds.push(second);
    const first = this.seconds.findIndex(({ t }) => t >= second.t - WINDOW * 1000);
    this.seconds.splice(0, Math.max(0, first - 1));
  }
}
