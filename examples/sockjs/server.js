// An ordinary SockJS server: it says which process it is, then echoes.
'use strict';

const http = require('node:http');
const sockjs = require('sockjs');

const echo = sockjs.createServer({ log: (severity, text) => severity === 'error' && console.error(text) });
echo.on('connection', (connection) => {
  connection.write(`process ${process.pid}`);
  connection.on('data', (text) => connection.write(text));
});

const server = http.createServer((req, res) => res.writeHead(404).end());
echo.installHandlers(server, { prefix: '/echo' });
server.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`process ${process.pid} serves SockJS on port ${server.address().port}`);
});
