// Every worker in turn; whose turn it is goes over to the next version of this file.
//
//   sidetrack run --policy ./round-robin.js -- node server.js

let turn = 0;

export function balance(workers) {
  for (let tried = 0; tried < workers.length; tried++) {
    const worker = workers[turn++ % workers.length];
    if (!worker.draining) return worker;
  }
}

export const save = () => turn;
export const restore = state => { turn = state; };
