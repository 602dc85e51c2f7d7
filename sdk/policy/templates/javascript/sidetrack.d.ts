// What a policy may import from sidetrack, and what it exports. The contract with all its limits is
// wit/deps/policy.wit.

/** One worker process that may be chosen. */
interface Worker {
  /** Never reused: a worker that is restarted has another. */
  id: number;
  /** The slot's, such as `w0`. */
  name: string;
  /** Relative capacity; 1 unless configured. */
  weight: number;
  /** Gives up its sessions one by one: nothing new for it. */
  draining: boolean;
  /** Facts from the configuration, in its order. */
  labels: [key: string, value: string][];
}

type Decision =
  | { tag: 'worker'; val: number }
  | { tag: 'defer' }
  | { tag: 'refuse'; val: { status: number; retryAfter?: number; text: string } };

/** The request of the running call: only inside `balance` and `find`. */
declare module 'sidetrack:policy/request@1.1.0' {
  export function method(): string;
  /** Without the query, as sent. */
  export function path(): string;
  export function query(name: string): string | null | undefined;
  export function header(name: string): string | null | undefined;
  /** The client's IP address. */
  export function peer(): string | null | undefined;
  export function session(): string | null | undefined;
  /** 0 without a session. Rounded to 53 bits. */
  export function sessionHash(): number;
  export function isUpgrade(): boolean;
  /** How often this connection was given to a worker before. */
  export function attempt(): number;
}

declare module 'sidetrack:policy/host@1.1.0' {
  /** The id of the worker that owns a session. */
  export function sessionOwner(sid: string): number | null | undefined;
  /** Below 2 ** 64, rounded to 53 bits. Not for secrets. */
  export function randomU64(): number;
  /** Nanoseconds; only differences mean something. */
  export function now(): number;
  export function log(level: 'error' | 'warn' | 'info' | 'debug', text: string): void;
  /** Says why the running call decides as it does, to whoever traces it. */
  export function explain(text: string): void;
}

/** A small store in sidetrack, which survives a fault and a new version. */
declare module 'sidetrack:policy/store@1.1.0' {
  export function get(key: string): Uint8Array | null | undefined;
  export function set(key: string, value: Uint8Array): boolean;
  function remove(key: string): void;
  export { remove as delete };
  export function add(key: string, number: number): number;
}
