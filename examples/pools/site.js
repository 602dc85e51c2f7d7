// A plain site. It knows nothing of the chat beside it, which has a process of its own.
'use strict';

const http = require('node:http');

const page = `<!doctype html>
<meta charset="utf-8">
<title>Two servers, one address</title>
<p>This page comes from process ${process.pid}, which knows no Socket.IO.
<p>The chat: <span id="chat">connecting …</span>
<form><input autofocus placeholder="Say something"></form>
<ul></ul>
<script src="/socket.io/socket.io.js"></script>
<script>
  const socket = io();
  const show = (text) => document.querySelector('ul').append(Object.assign(document.createElement('li'), { textContent: text }));
  socket.on('welcome', (pid) => { chat.textContent = 'process ' + pid; });
  socket.on('said', show);
  document.forms[0].addEventListener('submit', (event) => {
    event.preventDefault();
    const [input] = event.target;
    socket.emit('say', input.value);
    input.value = '';
  });
</script>
`;

const server = http.createServer((req, res) => {
  const found = req.url.split('?')[0] === '/';
  const body = found ? page : 'Nothing here.\n';
  const type = found ? 'text/html; charset=utf-8' : 'text/plain; charset=utf-8';
  res.writeHead(found ? 200 : 404, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
  res.end(req.method === 'HEAD' ? undefined : body);
});
server.listen(3000);
