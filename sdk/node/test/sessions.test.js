'use strict';

const assert = require('node:assert');
const { test } = require('node:test');
const { create } = require('../lib/sessions');

const MINUTE = 60_000;

function make() {
  const made = { told: [], at: 1e12 };
  made.sessions = create({
    tell: (message, written) => {
      made.told.push([message.type.replace('sidetrack:', ''), message.sid, message.ends].filter((part) => part !== undefined).join(' '));
      written?.();
    },
    now: () => made.at,
  });
  return made;
}

test('a session with an end is this process\'s own from its announcement to that', async () => {
  const { sessions, told } = make();
  assert.strictEqual(sessions.own('a'), false);
  await sessions.open('a');
  await sessions.open('a');
  assert.strictEqual(sessions.own('a'), true);
  sessions.close('a');
  sessions.close('a');
  assert.strictEqual(sessions.own('a'), false);
  assert.deepStrictEqual(told, ['opened a', 'closed a']);
});

test('whether a lasting session has ended can be told from a number', async () => {
  const { sessions } = make();
  await sessions.open('a');
  await sessions.open('b', { ends: false });
  assert.deepStrictEqual([sessions.lasting('a'), sessions.lasting('b'), sessions.lasting('c')], [true, false, false]);
  const before = sessions.ended();
  sessions.close('b');
  sessions.close('c');
  assert.strictEqual(sessions.ended(), before);
  sessions.close('a');
  assert.notStrictEqual(sessions.ended(), before);
  assert.strictEqual(sessions.lasting('a'), false);
});

test('a session without is announced again while it is used, at most once a minute', async () => {
  const made = make();
  await made.sessions.open('a', { ends: false });
  for (let i = 0; i < 180; i++) {
    made.at += MINUTE / 60;
    if (i % 2) assert.ok(made.sessions.own('a'));
    else await made.sessions.open('a', { ends: false });
  }
  assert.deepStrictEqual(made.told, Array(4).fill('opened a false'));
});

test('… and is forgotten half an hour after it was last used', async () => {
  const made = make();
  await made.sessions.open('a', { ends: false });
  made.at += 29 * MINUTE;
  assert.ok(made.sessions.own('a'));
  made.at += 30 * MINUTE;
  assert.ok(made.sessions.own('a'));
  made.at += 30 * MINUTE + 1;
  assert.ok(!made.sessions.own('a'));
  assert.ok(!made.sessions.own('a'));
  made.sessions.close('a');
  assert.deepStrictEqual(made.told, Array(3).fill('opened a false'));
});

test('… but not while one of its requests is being answered', async () => {
  const made = make();
  await made.sessions.open('a', { ends: false });
  await made.sessions.open('b', { ends: false });
  const [first, second] = [made.sessions.use('a'), made.sessions.use('a')];
  made.sessions.use('nobody')();
  for (let i = 0; i < 90; i++) {
    made.at += MINUTE;
    made.sessions.refresh();
    if (i === 10) first();
  }
  assert.deepStrictEqual(made.told.splice(0), ['opened a false', 'opened b false', ...Array(90).fill('opened a false')]);
  await made.sessions.open('c', { ends: false }); // sweeps
  assert.ok(made.sessions.own('a') && !made.sessions.own('b'));
  second();
  made.at += 29 * MINUTE;
  made.sessions.refresh();
  assert.ok(made.sessions.own('a'));
  made.at += 31 * MINUTE;
  assert.ok(!made.sessions.own('a'));
  assert.deepStrictEqual(made.told, ['opened c false', 'opened a false']);
});

test('an end that becomes known counts', async () => {
  const made = make();
  await made.sessions.open('a', { ends: false });
  await made.sessions.open('a');
  await made.sessions.open('a', { ends: false });
  made.at += 60 * MINUTE;
  assert.ok(made.sessions.own('a'));
  made.sessions.close('a');
  assert.deepStrictEqual(made.told, ['opened a false', 'opened a', 'closed a']);
});

test('all of them are announced again to a sidetrack that knows none', async () => {
  const made = make();
  await made.sessions.open('ends');
  await made.sessions.open('used', { ends: false });
  await made.sessions.open('forgotten', { ends: false });
  await made.sessions.open('closed');
  made.sessions.close('closed');
  made.at += 20 * MINUTE;
  assert.ok(made.sessions.own('used'));
  made.at += 20 * MINUTE;
  made.told.length = 0;
  made.sessions.repeat();
  assert.deepStrictEqual(made.told, ['opened ends', 'opened used false']);
  // Which counts as an announcement, and not as a use.
  made.told.length = 0;
  assert.ok(made.sessions.own('used'));
  assert.deepStrictEqual(made.told, []);
  made.at += 31 * MINUTE;
  assert.strictEqual(made.sessions.own('used'), false);
});

test('sidetrack may say how long a session is remembered, and change its mind', async () => {
  const made = make();
  made.sessions.remember(2 * MINUTE);
  await made.sessions.open('a', { ends: false });
  made.at += 2 * MINUTE;
  assert.ok(made.sessions.own('a'));
  made.at += 3 * MINUTE;
  made.sessions.remember(4 * MINUTE);
  assert.ok(made.sessions.own('a'));
  made.at += 4 * MINUTE + 1;
  assert.ok(!made.sessions.own('a'));
});
