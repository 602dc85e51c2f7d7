// Says "beforeExit" when it ends by itself, and "exit CODE" however it ends.
'use strict';

const fs = require('node:fs');
process.on('beforeExit', () => fs.writeSync(1, 'beforeExit\n'));
process.on('exit', (code) => fs.writeSync(1, `exit ${code}\n`));
if (process.env.TICK) setInterval(() => {}, 1000);
require('./listen');
