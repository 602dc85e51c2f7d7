// A keep-alive pool of a few connections, as a proxy has one, and who uses it.
'use strict';

const { Agent, request } = require('undici');

/** An agent that counts the connections it makes. */
exports.pooled = function (connections) {
  const agent = new Agent({ connections, pipelining: 1 });
  agent.made = 0;
  agent.on('connect', () => agent.made++);
  return agent;
};

/** Somebody with cookies of their own. */
exports.visitor = function (dispatcher, url) {
  let cookie;
  async function ask(method, path) {
    const { statusCode, headers, body } = await request(url + path, { dispatcher, method, headers: cookie ? { cookie } : {} });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`${method} ${path}: ${statusCode} ${text}`);
    for (const line of [headers['set-cookie'] ?? []].flat()) cookie = line.split(';', 1)[0];
    return JSON.parse(text);
  }
  return { visit: () => ask('GET', '/'), leave: () => ask('POST', '/leave'), cookie: () => cookie };
};
