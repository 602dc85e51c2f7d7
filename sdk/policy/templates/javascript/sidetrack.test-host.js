// Stands in for sidetrack while `node --test` runs: what the policy asks is answered from `host`, and
// what it says is kept there. Load it before the policy: `await import('./policy.js')`.

import * as module from 'node:module';

/** Set what a test needs; `reset()` between tests. */
export const host = {};

export function reset() {
  Object.assign(host, {
    method: 'GET',
    path: '/',
    query: {},
    headers: {}, // names in lower case
    peer: '127.0.0.1',
    session: undefined,
    sessionHash: 0,
    isUpgrade: false,
    attempt: 0,
    owners: {}, // session id: worker id
    random: [], // numbers below 2 ** 53, taken one by one; then Math.random
    now: 0,
    stored: new Map(),
    logged: [],
    explained: undefined,
  });
}
reset();

const interfaces = {
  request: {
    method: () => host.method,
    path: () => host.path,
    query: (name) => host.query[name],
    header: (name) => host.headers[name.toLowerCase()],
    peer: () => host.peer,
    session: () => host.session,
    sessionHash: () => host.sessionHash,
    isUpgrade: () => host.isUpgrade,
    attempt: () => host.attempt,
  },
  host: {
    sessionOwner: (sid) => host.owners[sid],
    randomU64: () => host.random.shift() ?? Math.floor(Math.random() * 2 ** 53),
    now: () => host.now,
    log: (level, text) => void host.logged.push([level, text]),
    explain: (text) => void (host.explained = text),
  },
  store: {
    get: (key) => host.stored.get(key),
    set: (key, value) => (host.stored.set(key, value), true),
    delete: (key) => void host.stored.delete(key),
    add(key, number) {
      const old = host.stored.get(key);
      const view = new DataView(new ArrayBuffer(8));
      if (old?.length === 8) old.forEach((byte, at) => view.setUint8(at, byte));
      const sum = view.getBigInt64(0, true) + BigInt(number);
      view.setBigInt64(0, sum, true);
      host.stored.set(key, new Uint8Array(view.buffer));
      return Number(sum);
    },
  },
};

// Node imports only what it can find, so each interface becomes a small module.
globalThis.__sidetrack = interfaces;
const source = (name) =>
  Object.keys(interfaces[name])
    .map((key) => `const $${key} = globalThis.__sidetrack.${name}.${key}; export { $${key} as ${key} };`)
    .join('\n') + `\nexport default globalThis.__sidetrack.${name};`;
const pattern = /^sidetrack:policy\/(request|host|store)@1\.\d+\.\d+$/;
const urls = Object.fromEntries(
  Object.keys(interfaces).map((name) => [name, `data:text/javascript,${encodeURIComponent(source(name))}`]),
);
const resolve = (specifier, context, next) => {
  const found = pattern.exec(specifier);
  return found ? { url: urls[found[1]], shortCircuit: true } : next(specifier, context);
};
if (module.registerHooks) {
  module.registerHooks({ resolve });
} else {
  // Before Node 22.15 such a hook lives in a thread of its own.
  const text = `const urls = ${JSON.stringify(urls)}; const pattern = ${pattern}; export const resolve = ${resolve};`;
  module.register(`data:text/javascript,${encodeURIComponent(text)}`);
}
