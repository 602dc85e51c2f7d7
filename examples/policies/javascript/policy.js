// room-affinity: whoever enters the same room comes to the same worker, so that a room's messages need
// not travel between workers. A room whose worker is full spills over to its next one, and everybody
// who comes later finds the way by the same rule.
//
// The way is rendezvous hashing: each worker has a score for each room, and the highest one that has
// space wins. When a worker goes, its rooms alone move. Options: {"key": "room", "slack": 1.25}, the
// query parameter that names the room, and how far above the mean a worker's load may be.

import { explain } from 'sidetrack:policy/host@1.1.0';
import { query } from 'sidetrack:policy/request@1.1.0';

let key = 'room';
let slack = 1.25;
let workers = [];
// What each slot's scores are made of. A restarted worker keeps its slot's name, and so its rooms.
let seeds = new Map();

export const policy = {
  configure(json) {
    for (const [name, value] of Object.entries(JSON.parse(json))) {
      if (name === 'key' && typeof value === 'string') key = value;
      else if (name === 'slack' && value >= 1) slack = value;
      else throw `expected {"key": TEXT, "slack": NUMBER from 1}, found "${name}": ${JSON.stringify(value)}`;
    }
  },

  setWorkers(list) {
    workers = list;
    if (seeds.size > 10_000) seeds = new Map(); // slots of joined workers have any name
    for (const worker of list) {
      worker.seed = seeds.get(worker.name);
      if (worker.seed === undefined) seeds.set(worker.name, (worker.seed = mix(seeds.size + 1)));
    }
  },

  balance(loads) {
    const room = query(key);
    if (room == null) return { tag: 'defer' };
    // The newcomer counts, so somebody always has space.
    let total = 1;
    let open = 0;
    for (let i = 0; i < workers.length; i++) {
      if (workers[i].draining) continue;
      total += loads[i];
      open++;
    }
    if (open === 0) return { tag: 'defer' };
    const full = Math.ceil((total / open) * slack);

    const code = hash(room);
    let best = -1;
    let highest = -1;
    let own = -1; // with space or without
    let ownScore = -1;
    for (let i = 0; i < workers.length; i++) {
      const worker = workers[i];
      if (worker.draining) continue;
      const score = Math.imul(code ^ worker.seed, 0x9e3779b1) >>> 0;
      if (score > ownScore) (own = i), (ownScore = score);
      if (score > highest && loads[i] < full) (best = i), (highest = score);
    }
    const { id, name } = workers[best];
    explain(best === own ? `${name} is this room's own` : `${workers[own].name} is full, ${name} is next for this room`);
    return { tag: 'worker', val: id };
  },
};

// FNV-1a. A client may send a room as long as a request's head: the beginning has to do.
function hash(text) {
  let bits = 0x811c9dc5;
  const end = Math.min(text.length, 100);
  for (let i = 0; i < end; i++) bits = Math.imul(bits ^ text.charCodeAt(i), 0x01000193);
  return mix(bits);
}

// MurmurHash3's last step: every bit of a number reaches every bit.
function mix(bits) {
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return bits ^ (bits >>> 16);
}
