'use strict';

const assert = require('node:assert');
const { test } = require('node:test');
const { reader } = require('../lib/matches');

test('all languages agree', () => {
  for (const { matches, own, others } of require('../../../tests/matches.json')) {
    const isOwn = reader(matches);
    for (const [expected, requests] of [[true, own], [false, others]]) {
      for (const [url, host] of requests) {
        const headers = host === null ? {} : { host };
        assert.strictEqual(isOwn({ url, headers }), expected, `${matches}: ${url} ${host}`);
      }
    }
  }
});
