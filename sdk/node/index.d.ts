/** True in a worker that sidetrack has started. Elsewhere everything here is harmless. */
export declare const active: boolean;

/** The worker's slot (`w0`, `w1`, …); undefined outside sidetrack. */
export declare const slot: string | undefined;

export interface Sessions {
  /**
   * Takes a session as this worker's: requests with its id come here from now on. Wait for the result
   * before an answer tells the client of the id.
   *
   * `ends` (default true): `close` will be called. Otherwise the session is forgotten when it has not
   * been used for sidetrack's `--session-idle` (half an hour).
   */
  open(sid: string, options?: { ends?: boolean }): Promise<void>;

  /** The session has ended. */
  close(sid: string): void;

  /** Whether the session is this worker's. Asking counts as a use. */
  own(sid: string): boolean;
}

export declare const sessions: Sessions;

/**
 * The id that a new session shall have instead of this one: it begins with this worker's tag where
 * sidetrack wants that, so that requests find their way without a table. Engine.IO's ids are tagged by
 * themselves.
 */
export declare function tagged(id: string): string;

declare const worker: {
  readonly active: boolean;
  readonly slot: string | undefined;
  readonly sessions: Sessions;
  readonly tagged: typeof tagged;
};
export default worker;
