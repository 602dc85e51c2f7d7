// For editors: what a policy script finds around it. Beside a script with `// @ts-check` in its first line, an
// editor completes and checks:
//
//   /** @type {Balance} */
//   export const balance = (workers, request) => leastLoaded(workers);

/** One worker process. The object stays the same while the worker lives. */
interface Worker {
  /** Never used again. */
  readonly id: number;
  /** The slot's name, such as `w0`; a restarted worker has it again. */
  readonly name: string;
  /** Open sessions and connections, now. */
  readonly load: number;
  /** Relative capacity, 1 unless configured. */
  readonly weight: number;
  /** Whether it should get nothing new. */
  readonly draining: boolean;
  readonly labels: { readonly [label: string]: string | undefined };
}

/** The request that is being decided. Each property is looked up when it is read. */
interface PolicyRequest {
  readonly method: string;
  /** Without the query, as sent. */
  readonly path: string;
  /** The client's IP address. */
  readonly peer: string | undefined;
  /** The session id, where `--session-key` says it is. */
  readonly session: string | undefined;
  /** Whether it asks for a WebSocket. */
  readonly isUpgrade: boolean;
  /** How often this connection has come back from a worker: 0 at first. */
  readonly attempt: number;
  /** The first query parameter of that name, decoded. */
  query(name: string): string | undefined;
  /** The first header of that name. */
  header(name: string): string | undefined;
  /** The first cookie of that name, decoded. */
  cookie(name: string): string | undefined;
}

interface Refusal {
  readonly status: number;
  readonly retryAfter?: number;
  readonly text?: string;
}

/** A worker, its id or name, a refusal, or nothing: somebody else decides. */
type Decision = Worker | number | string | Refusal | undefined | null | void;

type Balance = (workers: readonly Worker[], request: PolicyRequest) => Decision;
type Find = (sid: string, workers: readonly Worker[], request: PolicyRequest) => Decision;

/** The worker with the lowest load that is not draining, equals in turn. */
declare function leastLoaded(workers: readonly Worker[]): Worker | undefined;
/** The worker that a text belongs to: the same one for as long as it is there. */
declare function byHash(workers: readonly Worker[], text: string): Worker | undefined;
/** Turns the client away, with a status from 400 to 599. */
declare function refuse(status: number, options?: { retryAfter?: number; text?: string }): Refusal;
/** The worker that owns a session, by sidetrack's table. */
declare function sessionOwner(sid: string): Worker | undefined;
/** A fraction below 1, or a whole number below `bound`. */
declare function random(bound?: number): number;
/** Milliseconds on a clock that never goes back. */
declare function now(): number;
/** Says why, for `sidetrack policy explain`. */
declare function explain(...what: unknown[]): void;
/** Writes to sidetrack's log. */
declare function log(...what: unknown[]): void;

declare const console: {
  error(...what: unknown[]): void;
  warn(...what: unknown[]): void;
  info(...what: unknown[]): void;
  log(...what: unknown[]): void;
  debug(...what: unknown[]): void;
};

/** JSON values that outlive errors and new versions. */
declare const store: {
  get(key: string): any;
  /** False when there is no room. */
  set(key: string, value: unknown): boolean;
  delete(key: string): void;
  /** Adds to a number, 1 unless said otherwise, and returns the sum. */
  add(key: string, number?: number): number;
};
