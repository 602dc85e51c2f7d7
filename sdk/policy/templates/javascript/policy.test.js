import assert from 'node:assert';
import { test } from 'node:test';

import { host } from './sidetrack.test-host.js';

const { policy } = await import('./policy.js');

const worker = (id, more) => ({ id, name: `w${id}`, weight: 1, draining: false, labels: [], ...more });

test('the lowest load wins', () => {
  policy.setWorkers([worker(1), worker(2), worker(3)]);
  assert.deepEqual(policy.balance([5, 2, 9]), { tag: 'worker', val: 2 });
  assert.equal(host.explained, 'w2 has the lowest load, 2');
});

test('nothing new for a draining worker', () => {
  policy.setWorkers([worker(1, { draining: true }), worker(2)]);
  assert.deepEqual(policy.balance([0, 7]), { tag: 'worker', val: 2 });
  policy.setWorkers([worker(1, { draining: true })]);
  assert.deepEqual(policy.balance([0]), { tag: 'defer' });
});

test('an unknown option is refused', () => {
  policy.configure('{}');
  assert.throws(() => policy.configure('{"wat": 1}'), (said) => said === 'unknown option "wat"');
});
