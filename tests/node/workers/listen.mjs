// The same as listen.js, as an ES module.
import http from 'node:http';
import { Server } from 'socket.io';
import app from './app.js';

const server = http.createServer(app.routes());
const io = new Server(server, app.ioOptions);
app.events(io);
server.listen(Number(process.env.PORT ?? 3000), () => console.log('listening on', server.address().port));
