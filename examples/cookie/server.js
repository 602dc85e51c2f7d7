// An ordinary Express app whose sessions live in this process's memory (express-session's default
// store). Nothing in it knows of several processes.
'use strict';

const express = require('express');
const session = require('express-session');

const app = express();
app.use(session({ name: 'app', secret: 'an example', resave: false, saveUninitialized: true }));

app.get('/', (req, res) => {
  req.session.count = (req.session.count ?? 0) + 1;
  res.json({ count: req.session.count, pid: process.pid });
});

app.post('/leave', (req, res, next) => {
  req.session.destroy((error) => {
    if (error) return next(error);
    res.clearCookie('app').json({ pid: process.pid });
  });
});

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`process ${process.pid} serves the counters on port ${server.address().port}`);
});
