import http from 'node:http';
import worker, { active, slot, sessions } from 'sidetrack-worker';

process.send({ active, slot, same: worker.sessions === sessions });
http.createServer(async (req, res) => {
  if (req.url === '/begin') await sessions.open('from-esm', { ends: false });
  res.end(slot);
}).listen(process.env.PORT);
