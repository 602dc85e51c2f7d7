/** True in a worker that sidetrack has started. Elsewhere everything here is harmless. */
export declare const active: boolean;

/** The worker's slot (`w0`, `w1`, …); undefined outside sidetrack. */
export declare const slot: string | undefined;

export interface Sessions {
  /**
   * Takes a session as this worker's: requests with its id come here from now on. Wait for the result
   * before an answer tells the client of the id.
   *
   * `ends` (default true): `close` will be called. Otherwise the session is forgotten half an hour
   * after it was last used.
   */
  open(sid: string, options?: { ends?: boolean }): Promise<void>;

  /** The session has ended. */
  close(sid: string): void;

  /** Whether the session is this worker's. Asking counts as a use. */
  own(sid: string): boolean;
}

export declare const sessions: Sessions;

declare const worker: { readonly active: boolean; readonly slot: string | undefined; readonly sessions: Sessions };
export default worker;
