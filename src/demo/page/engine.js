// A small Socket.IO client (Engine.IO protocol 4, Socket.IO protocol 5): enough to ask questions
// over polling, over a WebSocket, or over polling that becomes a WebSocket.
//
// Written for this page, to show the wire rather than to hide it. Use socket.io-client in earnest.

const PATH = "/socket.io/";

// Engine.IO packets begin with a digit…
const OPEN = "0", CLOSE = "1", PING = "2", PONG = "3", MESSAGE = "4", UPGRADE = "5";
// …and a message with one more, from Socket.IO.
const CONNECT = "40", DISCONNECT = "41", EVENT = "42", ACK = "43";

/** Between the packets of one polling body. */
const SEPARATOR = "\x1e";

/** Nothing here takes longer, except on a machine that is asleep. */
const PATIENCE = 15_000;

/** Why a session ended; `reason` is one of "unknown", "unreachable", "closed", "timeout". */
export class SessionError extends Error {
  constructor(reason, detail) {
    super(detail ?? reason);
    this.reason = reason;
  }
}

/** One session. `kind` is "polling", "websocket" or "upgrade". */
export class Session {
  sid = null;
  onend = () => {};
  /** Called whenever a new connection is made for this session. */
  onconnection = () => {};

  #transport = null;
  #questions = new Map();
  #asked = 0;
  #connected = Promise.withResolvers();
  #ended = null;

  constructor(kind) {
    this.kind = kind;
    this.#connected.promise.catch(() => {});
  }

  /** Handshake, upgrade if wanted, and connection to the default namespace. */
  async open() {
    try {
      this.#transport = this.kind === "websocket" ? new Socket(this) : new Polling(this);
      await this.#transport.open();
      await this.#transport.send(CONNECT);
      await within(this.#connected.promise);
      if (this.kind === "upgrade") {
        const socket = new Socket(this);
        await socket.upgrade(this.sid);
        this.#transport = socket;
      }
    } catch (error) {
      this.end(error);
      throw error;
    }
  }

  /** Sends an event and resolves with its acknowledgement. */
  async ask(event) {
    if (this.#ended) throw this.#ended;
    const id = this.#asked++;
    const answer = Promise.withResolvers();
    answer.promise.catch(() => {}); // heard below, or nobody cares any more
    this.#questions.set(id, answer);
    try {
      await this.#transport.send(`${EVENT}${id}${JSON.stringify([event])}`);
      return await within(answer.promise);
    } catch (error) {
      this.end(error);
      throw error;
    }
  }

  /** True while the server owes an answer; a polling transport fetches until it does not. */
  get waiting() {
    return this.#questions.size > 0 || this.sid === null || !this.#connected.settled;
  }

  /** Ends the session, as a client that leaves. Works while the page is being closed. */
  close() {
    this.#transport?.close();
    this.end(new SessionError("closed", "closed by this page"));
  }

  end(error) {
    if (this.#ended) return;
    this.#ended = error instanceof SessionError ? error : new SessionError("unreachable", String(error));
    for (const answer of this.#questions.values()) answer.reject(this.#ended);
    this.#connected.reject(this.#ended);
    this.#transport?.abandon();
    this.onend(this.#ended);
  }

  /** Takes a packet from either transport. */
  take(packet) {
    if (packet.startsWith(OPEN)) {
      this.sid = JSON.parse(packet.slice(1)).sid;
    } else if (packet === PING) {
      this.#transport.send(PONG).catch((error) => this.end(error));
    } else if (packet === CLOSE || packet.startsWith(DISCONNECT)) {
      this.end(new SessionError("closed", "closed by the server"));
    } else if (packet.startsWith(CONNECT)) {
      this.#connected.settled = true;
      this.#connected.resolve();
    } else if (packet.startsWith(ACK)) {
      const [, id, values] = packet.match(/^43(\d+)(\[.*\])$/s) ?? [];
      const answer = this.#questions.get(Number(id));
      this.#questions.delete(Number(id));
      answer?.resolve(JSON.parse(values)[0]);
    }
    // What else there is (noop, events from the server) this page has no use for.
  }
}

/**
 * Every exchange is one or more fresh HTTP requests that carry the session id.
 *
 * A usual client always keeps one GET waiting. Browsers allow six connections to a host, so a page
 * with many sessions cannot: this one asks only while an answer is due.
 */
class Polling {
  #session;
  #outgoing = [];
  #turn = null;
  #abandoned = new AbortController();

  constructor(session) {
    this.#session = session;
  }

  async open() {
    this.#receive(await this.#request("GET"));
  }

  /** Resolves once the packet is delivered and everything due has come back. */
  send(packet) {
    this.#outgoing.push(packet);
    this.#turn ??= this.#exchange().finally(() => (this.#turn = null));
    return this.#turn;
  }

  close() {
    // Unlike fetch, a beacon survives the page.
    if (this.#session.sid) navigator.sendBeacon(this.#url(), CLOSE);
  }

  abandon() {
    this.#abandoned.abort();
  }

  async #exchange() {
    await null; // packets sent in the same breath travel together
    do {
      while (this.#outgoing.length > 0) {
        await this.#request("POST", this.#outgoing.splice(0).join(SEPARATOR));
      }
      if (this.#session.waiting) this.#receive(await this.#request("GET"));
    } while (this.#session.waiting || this.#outgoing.length > 0);
  }

  async #request(method, body) {
    this.#session.onconnection(method);
    const signal = AbortSignal.any([this.#abandoned.signal, AbortSignal.timeout(PATIENCE)]);
    const response = await fetch(this.#url(), { method, body, cache: "no-store", signal });
    const text = await response.text();
    if (response.ok) return text;
    // Engine.IO answers 400 to a session id it does not know.
    if (response.status === 400) throw new SessionError("unknown", "another worker did not know it");
    throw new SessionError("unreachable", `the answer was ${response.status}`);
  }

  #receive(body) {
    for (const packet of body.split(SEPARATOR)) this.#session.take(packet);
  }

  #url() {
    const sid = this.#session.sid ? `&sid=${encodeURIComponent(this.#session.sid)}` : "";
    return `${PATH}?EIO=4&transport=polling${sid}`;
  }
}

/** One connection for the whole session, or for the rest of it after an upgrade. */
class Socket {
  #session;
  #socket = null;

  constructor(session) {
    this.#session = session;
  }

  open() {
    return this.#connect("", (packet, done) => {
      this.#session.take(packet);
      done();
    });
  }

  /** Joins a session that began with polling: probe, answer, then everything goes this way. */
  upgrade(sid) {
    return this.#connect(`&sid=${encodeURIComponent(sid)}`, (packet, done) => {
      if (packet === `${PONG}probe`) {
        this.#socket.send(UPGRADE);
        done();
      }
    }, () => this.#socket.send(`${PING}probe`));
  }

  async send(packet) {
    this.#socket.send(packet);
  }

  close() {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(CLOSE);
    this.#socket?.close();
  }

  abandon() {
    if (this.#socket) this.#socket.onclose = null;
    this.#socket?.close();
  }

  #connect(query, first, opened = () => {}) {
    this.#session.onconnection("WebSocket");
    const { promise, resolve, reject } = Promise.withResolvers();
    const url = new URL(`${PATH}?EIO=4&transport=websocket${query}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(url));
    socket.onopen = opened;
    socket.onmessage = ({ data }) =>
      first(data, () => {
        socket.onmessage = ({ data }) => this.#session.take(data);
        resolve();
      });
    socket.onclose = ({ code }) => {
      const error = new SessionError("closed", `the connection ended (${code})`);
      reject(error);
      this.#session.end(error);
    };
    return within(promise);
  }
}

function within(promise) {
  const { promise: late, reject } = Promise.withResolvers();
  const timer = setTimeout(() => reject(new SessionError("timeout", "no answer")), PATIENCE);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
