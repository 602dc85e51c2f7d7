// Never gets anywhere. EXIT_CODE chooses how it fails (default 3).
'use strict';

console.error('exits-at-start: leaving');
process.exit(Number(process.env.EXIT_CODE ?? 3));
