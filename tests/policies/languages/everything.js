// Uses all that the contract offers; the path of a request says what to try.

import * as request from 'sidetrack:policy/request@1.1.0';
import * as host from 'sidetrack:policy/host@1.1.0';
import * as store from 'sidetrack:policy/store@1.1.0';

let options;
let workers = [];
let saved = 0;
const said = (...parts) => ({
  tag: 'refuse',
  val: { status: 503, retryAfter: 7, text: parts.map((part) => String(part ?? 'none') + '|').join('') },
});
const number = (flag) => Number(flag);

export const policy = {
  configure(json) {
    options = json;
    if (json === '{"wrong":1}') throw 'wrong is wrong';
  },

  setWorkers(list) {
    workers = list;
  },

  balance(loads) {
    switch (request.path()) {
      case '/request':
        return said(
          request.method(),
          request.query('a'),
          request.query('b'),
          request.header('x-one'),
          request.header('x-two'),
          request.peer(),
          request.session(),
          request.sessionHash(),
          number(request.isUpgrade()),
          request.attempt(),
        );
      case '/host': {
        const [known, unknown, begin] = [host.sessionOwner('known'), host.sessionOwner('unknown'), host.now()];
        host.log('info', 'hello');
        host.explain('because');
        const random = host.randomU64() !== host.randomU64();
        return said(1, known, number(unknown != null), number(random), number(host.now() >= begin && begin > 0));
      }
      case '/store': {
        const [first, second] = [store.add('count', 5), store.add('count', -2)];
        const set = store.set('key', new Uint8Array([...'value'].map((one) => one.charCodeAt(0))));
        const value = String.fromCharCode(...store.get('key'));
        store.delete('key');
        return said(first, second, number(set), value, number(store.get('key') == null));
      }
      case '/workers':
        return said(
          ...workers.flatMap(({ id, name, weight, draining, labels }, at) => {
            const zone = labels.find(([key]) => key === 'zone');
            return [id, name, weight, number(draining), zone?.[1], loads[at]];
          }),
          options,
        );
      case '/bare':
        return { tag: 'refuse', val: { status: 429, text: '' } };
      case '/count':
        return said(++saved);
      case '/memory':
        for (let i = 0; i < 8; i++) new Uint8Array(1 << 16).fill(1);
        return { tag: 'worker', val: workers[0].id };
      case '/wild':
        return workers[1e6].id;
      default:
        return { tag: 'defer' };
    }
  },
};

export const sessions = {
  find: (sid) => (sid === 'mine' ? { tag: 'worker', val: workers[1].id } : { tag: 'defer' }),
};

export const state = {
  save: () => new Uint8Array(new Uint32Array([saved]).buffer),
  restore(bytes) {
    if (bytes.length !== 4) throw 'not four bytes';
    saved = new DataView(Uint8Array.from(bytes).buffer).getUint32(0, true);
  },
};

export const schema = { current: () => 'count/1', reads: (form) => form === 'count/1' };

export const events = {
  sessionOpened(sid, worker) {
    if (sid === 's') saved += worker;
  },
  sessionClosed(sid, worker) {
    if (sid === 's') saved += 10 * worker;
  },
  workerFailed(worker) {
    saved += 100 * worker;
  },
};
