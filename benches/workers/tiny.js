// The least a worker can do for a connection, so that the measurement shows the proxy.
'use strict';

require('node:http').createServer((req, res) => res.end('ok')).listen(Number(process.env.PORT) || 0, '127.0.0.1');
