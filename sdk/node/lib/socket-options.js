// Makes a new socket cheaper in Node.js 18 and 20, by about a sixth of a short connection.
//
// `new net.Socket(options)` copies its options by `{ ...options }` and adds a few properties to the
// copy. While V8 (before that of Node.js 22) has seen few shapes of such options, it copies them into
// a hidden class from which it keeps no transitions: each property added makes a class that nobody
// has seen, and every later access misses its inline cache, some thirty times for each connection.
// Once it has seen more than four shapes it copies property by property, into classes that are known.
'use strict';

const net = require('net');

// As often as it takes until V8 notes what it has seen, and then some: a millisecond in all.
const SHAPES = 'abcdefgh';
const TIMES = 10;

if (Number.parseInt(process.versions.node, 10) < 22) {
  for (let i = 0; i < TIMES; i++) for (const name of SHAPES) new net.Socket({ [name]: i });
}
