'use strict';

const assert = require('node:assert');
const { test } = require('node:test');
const { FORGET_AFTER } = require('../lib/sessions');
const { fromAnswer, fromEnv, tagged } = require('../lib/terms');

const seen = ({ find, isOwn, ...rest }) => ({ key: `${find.kind}:${find.key}`, ...rest, own: isOwn?.({ url: '/api', headers: {} }) });

test('a sidetrack that says nothing gets what it always got', () => {
  const usual = { key: 'query:sid', keepAlive: 'hand-back', forgetAfter: FORGET_AFTER, tag: undefined, own: undefined };
  assert.deepStrictEqual(seen(fromEnv({})), usual);
  assert.deepStrictEqual(seen(fromAnswer({ session_idle: null, sid_tag: null })), usual);
  assert.throws(() => fromAnswer({ session_key: 'nonsense' }), /nonsense/);
});

test('one that says everything is followed', () => {
  const expected = { key: 'path:1', keepAlive: 'close', forgetAfter: 120_000, tag: 'w2', own: false };
  assert.deepStrictEqual(seen(fromEnv({
    SIDETRACK_SESSION_KEY: 'path:1', SIDETRACK_KEEPALIVE: 'close', SIDETRACK_SESSION_IDLE: '120', SIDETRACK_SID_TAG: 'w2',
    SIDETRACK_MATCHES: '-/api +',
  })), expected);
  assert.deepStrictEqual(seen(fromAnswer({
    session_key: 'path:1', keepalive: 'close', session_idle: 120, sid_tag: 'w2', matches: '-/api +',
  })), expected);
});

test('what makes no sense is as if nothing had been said', () => {
  for (const rubbish of ['', ' ', 'soon', '-1', '0', '1.5', '1e3', -1, 0, 1.5, NaN, true, [60], {}]) {
    assert.strictEqual(fromAnswer({ session_idle: rubbish }).forgetAfter, FORGET_AFTER, String(rubbish));
  }
  for (const rubbish of ['', 4, true, {}]) {
    assert.strictEqual(fromAnswer({ sid_tag: rubbish }).tag, undefined);
    assert.strictEqual(fromAnswer({ matches: rubbish }).isOwn, undefined);
  }
});

test('an id is tagged once', () => {
  assert.deepStrictEqual(['a', 'w2.a', 'w2a', 'w2'].map((id) => tagged('w2', id)), ['w2.a', 'w2.a', 'w2.w2a', 'w2.w2']);
  assert.strictEqual(tagged(undefined, 'a'), 'a');
});
