// express-session keeps its sessions in this process, and signs and encodes their cookie.
'use strict';

const express = require('express');
const session = require('express-session');

const app = express();
app.use(session({ secret: 'x', resave: false, saveUninitialized: false, cookie: { maxAge: 60_000 }, rolling: true }));
app.get('/count', (req, res) => {
  req.session.count = (req.session.count ?? 0) + 1;
  res.json({ slot: process.env.SIDETRACK_SLOT, count: req.session.count });
});
app.listen(process.env.PORT);
