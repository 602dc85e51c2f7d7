'use strict';

const assert = require('node:assert');
const { test } = require('node:test');
const { finder } = require('../lib/key');

function find(key, url, ...rawHeaders) {
  const headers = {};
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i].toLowerCase();
    headers[name] = headers[name] === undefined ? rawHeaders[i + 1] : `${headers[name]}${name === 'cookie' ? '; ' : ', '}${rawHeaders[i + 1]}`;
  }
  return finder(key)({ url, headers, rawHeaders });
}

test('a query parameter is parsed, not scanned', () => {
  for (const [url, id] of [
    ['/socket.io/?EIO=4&sid=abc', 'abc'],
    ['/?foo_sid=decoy&sid=abc', 'abc'],
    ['/?foo_sid=decoy', undefined],
    ['/?sidx=decoy&sid=abc&x', 'abc'],
    ['/sid=abc?x=sid%3Dabc', undefined],
    ['/?SID=abc', undefined],
    ['/?sid=', undefined],
    ['/?sid', undefined],
    ['/sid', undefined],
    ['/??sid=abc', undefined],
    ['/?a?sid=abc', undefined],
    ['/?sid=a=b', 'a=b'],
    ['/?sid=abc#sid=d', 'abc'],
    ['http://host/?sid=abc', 'abc'],
  ]) assert.strictEqual(find('query:sid', url), id, url);
});

test('both sides of a query parameter are decoded', () => {
  for (const [url, id] of [
    ['/?%73id=a%2Db', 'a-b'],
    ['/?sid=a+b', 'a b'],
    ['/?sid=%zz', '%zz'],
    ['/?sid=%c3%a9', 'é'],
    ['/?sid=\xc3\xa9', 'é'], // as Node holds the bytes of a head
    ['/?\xe9=\xe9&sid=abc', 'abc'],
    ['/+%?sid=abc', 'abc'],
    ['/?sid=&sid=', undefined],
    [`/?sid=${'\xc3\xa9'.repeat(129)}`, undefined],
    [`/?sid=${'\xc3\xa9'.repeat(128)}`, 'é'.repeat(128)],
    ['/?sid=%', '%'],
  ]) assert.strictEqual(find('query:sid', url), id, url);
  assert.strictEqual(find('query:a b', '/?a+b=1'), '1');
  assert.strictEqual(find('query:a b', '/?a%20b=1'), '1');
});

test('doubt is not guessed away', () => {
  for (const [url, id] of [
    ['/?sid=a&sid=b', undefined],
    ['/?sid=a&%73id=b', undefined],
    ['/?sid&sid=b', undefined],
    ['/?sid=a&sid=a', 'a'],
    ['/?sid=%ff%fe', undefined],
    ['/?sid=\xff', undefined],
    [`/?sid=${'x'.repeat(257)}`, undefined],
    [`/?sid=${'x'.repeat(256)}`, 'x'.repeat(256)],
    [`/?sid=${'%c3%a9'.repeat(129)}`, undefined],
    [`/?sid=${'%c3%a9'.repeat(128)}`, 'é'.repeat(128)],
  ]) assert.strictEqual(find('query:sid', url), id, url);
});

test('the other kinds', () => {
  assert.strictEqual(find('cookie:io', '/', 'Cookie', 'a=1; io=x%20y; b=2'), 'x y');
  assert.strictEqual(find('cookie:io', '/', 'Cookie', 'a=1;io = x', 'cookie', 'io=x'), 'x');
  assert.strictEqual(find('cookie:io', '/', 'Cookie', 'io=x; io=y'), undefined);
  assert.strictEqual(find('cookie:io', '/', 'Cookie', 'xio=1'), undefined);
  assert.strictEqual(find('cookie:io', '/'), undefined);
  assert.strictEqual(find('header:Mcp-Session-Id', '/', 'mcp-session-id', 'q7'), 'q7');
  assert.strictEqual(find('header:Mcp-Session-Id', '/', 'mcp-session-id', 'q7', 'MCP-Session-Id', 'q8'), undefined);
  assert.strictEqual(find('header:Mcp-Session-Id', '/'), undefined);
  assert.strictEqual(find('path:3', '/echo/000/s%201/xhr?x'), 's 1');
  assert.strictEqual(find('path:3', 'http://host/echo/000/s1'), 's1');
  assert.strictEqual(find('path:3', '/echo'), undefined);
  assert.strictEqual(find('path:3', '/echo/000//xhr'), undefined);
});

test('settings that are not keys say what would be', () => {
  for (const wrong of ['sid', 'query:', 'path:0', 'path:x', 'body:sid']) {
    assert.throws(() => finder(wrong), (error) => error.message.includes(wrong) && error.message.includes('path:N'));
  }
});
