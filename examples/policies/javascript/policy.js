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

export const policy = {
  configure(json) {
    for (const [name, value] of Object.entries(JSON.parse(json))) {
      if (name === 'key' && typeof value === 'string') key = value;
      else if (name === 'slack' && value >= 1) slack = value;
      else throw `expected {"key": TEXT, "slack": NUMBER from 1}, found "${name}": ${JSON.stringify(value)}`;
    }
  },

  setWorkers(list) {
    // A restarted worker keeps its slot's name, and so its rooms.
    workers = list.map(({ id, name, draining }) => ({ id, name, draining, seed: hash(name, 0) }));
  },

  balance(loads) {
    const room = query(key);
    if (room == null) return { tag: 'defer' };
    const open = workers.map((worker, at) => ({ worker, load: loads[at] })).filter(({ worker }) => !worker.draining);
    if (open.length === 0) return { tag: 'defer' };

    // The newcomer counts, so somebody always has space.
    const total = open.reduce((sum, { load }) => sum + load, 1);
    const full = Math.ceil((total / open.length) * slack);
    const ranked = open.map((one) => ({ ...one, score: hash(room, one.worker.seed) }));
    ranked.sort((a, b) => b.score - a.score);
    const place = ranked.findIndex(({ load }) => load < full);
    const { worker } = ranked[place];
    explain(place === 0 ? `${worker.name} is room ${room}'s own` : `${worker.name} is number ${place + 1} for room ${room}`);
    return { tag: 'worker', val: worker.id };
  },
};

// FNV-1a over UTF-16 units, finished as MurmurHash3 does: every bit of the text reaches every bit.
function hash(text, seed) {
  let bits = 0x811c9dc5 ^ seed;
  for (let i = 0; i < text.length; i++) bits = Math.imul(bits ^ text.charCodeAt(i), 0x01000193);
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
