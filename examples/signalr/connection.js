// SignalR's JSON hub protocol, whatever the transport: records that end in U+001E, the first of which is
// a handshake. No socket here; `write` and `end` are the transport's.
'use strict';

const END = '\x1e';
const INVOCATION = 1;
const STREAM_INVOCATION = 4;
const COMPLETION = 3;
const PING = 6;
const CLOSE = 7;

const PING_EVERY = 15_000;
const SILENCE = 30_000; // a client pings as well

exports.Connection = class Connection {
  #hub;
  #closed;
  #unread = '';
  #unwritten = [];
  #transport;
  #greeted = false;
  #pings;
  #silence;

  /** `closed` is called once, when the connection is no more. */
  constructor(hub, closed) {
    this.#hub = hub;
    this.#closed = closed;
    this.#silence = setTimeout(() => this.close('nothing was heard for too long'), SILENCE);
  }

  /** Attaches where answers go: `write(text)` for now, `end()` for good. */
  attach(transport) {
    this.#transport = transport;
    this.#flush();
  }

  /** Nowhere for now: answers wait. */
  detach() {
    this.#transport = undefined;
  }

  get attached() {
    return this.#transport;
  }

  async receive(text) {
    this.#silence.refresh();
    const records = (this.#unread + text).split(END);
    this.#unread = records.pop();
    for (const record of records) {
      try {
        const message = JSON.parse(record);
        if (!this.#greeted) this.#greet(message);
        else await this.#hear(message);
      } catch (error) {
        return this.close(`not understood: ${error.message}`);
      }
    }
  }

  close(error) {
    if (!this.#closed) return;
    if (this.#greeted) this.#say(error ? { type: CLOSE, error } : { type: CLOSE });
    clearTimeout(this.#silence);
    clearInterval(this.#pings);
    this.#transport?.end();
    this.#closed();
    this.#closed = undefined;
  }

  #greet({ protocol, version }) {
    const fits = protocol === 'json' && version === 1;
    this.#say(fits ? {} : { error: 'only version 1 of the JSON protocol is spoken here' });
    if (!fits) return this.close();
    this.#greeted = true;
    this.#pings = setInterval(() => this.#say({ type: PING }), PING_EVERY);
  }

  async #hear({ type, target, arguments: values, invocationId, error }) {
    if (type === CLOSE) return this.close(error);
    if (type !== INVOCATION && type !== STREAM_INVOCATION) return;
    const answer = type === INVOCATION ? await this.#call(target, values) : { error: 'nothing here streams' };
    if (invocationId !== undefined) this.#say({ type: COMPLETION, invocationId, ...answer });
  }

  async #call(target, values = []) {
    if (!Object.hasOwn(this.#hub, target)) return { error: `unknown method: ${target}` };
    try {
      return { result: (await this.#hub[target](...values)) ?? null };
    } catch (error) {
      return { error: error.message };
    }
  }

  #say(message) {
    this.#unwritten.push(JSON.stringify(message) + END);
    this.#flush();
  }

  #flush() {
    if (this.#transport && this.#unwritten.length > 0) this.#transport.write(this.#unwritten.splice(0).join(''));
  }
};
