// Busy for START_MS (default 1500) before it listens: "online" comes long before "ready".
'use strict';

const until = Date.now() + Number(process.env.START_MS ?? 1500);
while (Date.now() < until);
require('./listen');
