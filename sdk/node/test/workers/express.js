'use strict';

const express = require('express');
const { begin, count, end } = require('./counters');

const app = express();
app.use(express.raw({ type: '*/*', limit: '2mb' }));
app.get('/begin', async (req, res) => {
  const { headers, body } = await begin();
  res.set(headers).json(body);
});
const counting = (req, res) => {
  const { status, body } = count(req, req.body);
  res.status(status).json(body);
};
app.get('/count', counting);
app.post('/count', counting);
app.delete('/end', async (req, res) => {
  const { status, headers } = await end(req);
  res.status(status).set(headers).end();
});
app.listen(process.env.PORT);
