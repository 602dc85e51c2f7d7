// my-policy: who gets a connection whose session is new.
//
// Calls never overlap and one instance answers them all, so these variables are exact state.

import { explain } from 'sidetrack:policy/host@1.1.0';

let workers = [];

export const policy = {
  // The options: JSON text, '{}' without any. What it throws keeps the policy from being loaded.
  configure(json) {
    for (const name of Object.keys(JSON.parse(json))) throw `unknown option "${name}"`;
  },

  // All workers that may be chosen from now on: { id, name, weight, draining, labels: [[key, value]] }.
  setWorkers(list) {
    workers = list;
  },

  // Edit here. loads[i] says how busy workers[i] is: its open sessions and connections.
  balance(loads) {
    let best = -1;
    for (let i = 0; i < workers.length; i++) {
      if (workers[i].draining) continue; // it is being emptied: nothing new for it
      if (best < 0 || loads[i] < loads[best]) best = i;
    }
    if (best < 0) return { tag: 'defer' }; // no opinion: the next policy of the chain is asked
    explain(`${workers[best].name} has the lowest load, ${loads[best]}`);
    return { tag: 'worker', val: workers[best].id };
    // To turn a client away: { tag: 'refuse', val: { status: 503, retryAfter: 5, text: 'try later' } }
  },
};
