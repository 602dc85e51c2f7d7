import assert from 'node:assert';
import { beforeEach, test } from 'node:test';

import { host, reset } from './sidetrack.test-host.js';

const { policy } = await import('./policy.js');

const worker = (id, more) => ({ id, name: `w${id}`, weight: 1, draining: false, labels: [], ...more });
const four = [1, 2, 3, 4].map((id) => worker(id));

const place = (room, loads) => {
  host.query = { room };
  const { tag, val } = policy.balance(loads);
  assert.equal(tag, 'worker');
  return val;
};

beforeEach(() => {
  reset();
  policy.configure('{"key": "room", "slack": 1.25}');
  policy.setWorkers(four);
});

test('a room has one worker, and rooms are spread', () => {
  const rooms = Array.from({ length: 400 }, (_, number) => place(`room-${number}`, [0, 0, 0, 0]));
  for (const { id } of four) {
    const own = rooms.filter((one) => one === id).length;
    assert.ok(own > 70 && own < 130, `${own} rooms of worker ${id}`);
  }
  assert.equal(place('room-7', [0, 0, 0, 0]), rooms[7]);
});

test('when a worker goes, only its rooms move', () => {
  const loads = [0, 0, 0, 0];
  const before = Array.from({ length: 200 }, (_, number) => place(`${number}`, loads));
  policy.setWorkers([four[0], four[1], worker(3, { draining: true }), four[3]]);
  before.forEach((id, number) => {
    const now = place(`${number}`, loads);
    if (id === 3) assert.notEqual(now, 3);
    else assert.equal(now, id);
  });
});

test('a full worker spills over, always to the same next one', () => {
  const own = place('lobby', [10, 10, 10, 10]);
  const loads = four.map(({ id }) => (id === own ? 20 : 10));
  const next = place('lobby', loads);
  assert.notEqual(next, own);
  assert.equal(place('lobby', loads), next);
  assert.equal(host.explained, `w${own} is full, w${next} is next for this room`);
});

test('without a room or a worker it has no opinion', () => {
  assert.deepEqual(policy.balance([0, 0, 0, 0]), { tag: 'defer' });
  host.query = { room: 'a' };
  policy.setWorkers([worker(1, { draining: true })]);
  assert.deepEqual(policy.balance([0]), { tag: 'defer' });
});

test('a restarted worker keeps its rooms', () => {
  const before = place('lobby', [0, 0, 0, 0]);
  policy.setWorkers(four.map((one) => ({ ...one, id: one.id + 10 })));
  assert.equal(place('lobby', [0, 0, 0, 0]), before + 10);
});

test('options are checked', () => {
  assert.throws(() => policy.configure('{"slack": 0.5}'), (said) => /found "slack": 0.5$/.test(said));
  policy.configure('{"key": "table"}');
  host.query = { table: 'a' };
  assert.equal(policy.balance([0, 0, 0, 0]).tag, 'worker');
});
