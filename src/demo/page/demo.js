// The page: opens sessions, keeps asking them who serves them, and draws what they answer.

import { Session } from "/engine.js";

const NAMES = { polling: "polling", websocket: "WebSocket", upgrade: "upgrading" };
const FIRST = ["polling", "websocket", "upgrade", "polling", "websocket", "polling", "upgrade", "polling"];
const MIXED = ["polling", "polling", "websocket", "polling", "upgrade", "polling", "websocket", "polling", "upgrade", "polling"];
const MOST_SESSIONS = 60;

/** How often a session asks. A little uneven, so that the lights do not march. */
const pause = () => 1500 + Math.random() * 900;
/** After this long without a word (a sleeping machine), a session may rightly be forgotten. */
const FORGETTABLE = 60_000;
const LIGHT_TRAVELS = 650;

const $ = (selector, root = document) => root.querySelector(selector);
const yard = $("#yard");
const still = matchMedia("(prefers-reduced-motion: reduce)");

const wagons = new Set();
const lanes = new Map();
/** Sessions that met a worker which did not know them: who owned them, and when it was. */
const disowned = [];
/** When each process was last heard of, by pid. */
const heard = new Map();
let answers = 0;
let moved = 0;

// ---- Sessions

class Wagon {
  element = clone("#wagon");
  answers = 0;
  moved = 0;
  slot = null;
  pid = null;
  heard = Date.now();

  constructor(kind) {
    this.kind = kind;
    this.element.dataset.kind = kind;
    $(".kind", this.element).textContent = NAMES[kind];
    $("#arrivals").append(this.element);
    this.session = new Session(kind);
    this.session.onconnection = () => this.slot && light(this.slot, kind, this.element);
    wagons.add(this);
    this.run();
  }

  async run() {
    try {
      await this.session.open();
      for (;;) {
        this.answered(await this.session.ask("who"));
        await sleep(pause());
      }
    } catch (error) {
      if (wagons.has(this)) await this.lost(error);
    }
  }

  answered(who) {
    this.answers += 1;
    answers += 1;
    this.heard = Date.now();
    if (this.pid === null) {
      this.pid = who.pid;
      this.slot = who.slot;
      this.arrive(who);
    } else if (this.pid !== who.pid) {
      this.moved += 1;
      moved += 1;
    }
    meet(who);
    const label = this.kind === "upgrade" && who.transport === "websocket" ? "upgraded" : NAMES[this.kind];
    $(".kind", this.element).textContent = label;
    $(".answers", this.element).textContent = `${this.answers.toLocaleString("en")} ${this.answers === 1 ? "answer" : "answers"}`;
    const mark = $(".moved", this.element);
    mark.textContent = `moved: ${this.moved}`;
    mark.classList.toggle("bad", this.moved > 0);
    restart(this.element, "answered");
    figures();
  }

  /** The first answer tells which track it is: roll there. */
  arrive(who) {
    const lane = meet(who);
    const sid = this.session.sid ?? "";
    $(".sid", this.element).textContent = `${sid.slice(0, 6)}…`;
    this.element.title = `session ${sid}`;
    $(".track", lane.element).append(this.element);
    lay();
    light(this.slot, this.kind, this.element);
    if (!still.matches) {
      this.element.animate([{ translate: "-4rem 0", opacity: 0 }, {}], { duration: 500, delay: 300, fill: "backwards", easing: "ease-out" });
    }
  }

  /** Ended without our wish. Shows it, then begins anew. */
  async lost(error) {
    const asleep = Date.now() - this.heard > FORGETTABLE;
    if (error.reason === "unknown" && this.pid !== null && !asleep) disowned.push({ pid: this.pid, at: Date.now() });
    this.element.classList.add("lost");
    figures();
    if (this.slot) news(`A ${NAMES[this.kind]} session lost its worker, ${this.slot} (pid ${this.pid}), and begins anew.`);
    else news(`Nobody answers at ${location.host}; trying again.`);
    await sleep(error.reason === "unknown" ? 600 : 1200);
    if (!wagons.delete(this)) return;
    this.element.remove();
    new Wagon(this.kind);
    figures();
  }

  close() {
    wagons.delete(this);
    this.session.close();
    this.element.remove();
  }
}

function open(kinds) {
  for (const kind of kinds.slice(0, MOST_SESSIONS - wagons.size)) new Wagon(kind);
  figures();
}

// ---- Workers

/** Whoever answers has a track. Another pid in the same slot is a new worker. */
function meet({ slot, pid }) {
  heard.set(pid, Date.now());
  let lane = lanes.get(slot);
  if (!lane) {
    lane = { slot, pid, element: clone("#lane") };
    $("h2", lane.element).textContent = slot;
    $(".kill", lane.element).onclick = () => kill(lane);
    lanes.set(slot, lane);
    const order = [...lanes.values()].sort((a, b) => a.slot.localeCompare(b.slot, "en", { numeric: true }));
    $("#lanes").append(...order.map((lane) => lane.element));
    lay();
  } else if (lane.pid !== pid) {
    news(`${slot} has a new worker: pid ${pid} in place of ${lane.pid}.`);
    lane.pid = pid;
    restart(lane.element, "new");
  }
  return lane;
}

async function kill(lane) {
  const witness = [...wagons].find((wagon) => wagon.pid === lane.pid);
  if (!witness) return;
  news(`Killing ${lane.slot}, pid ${lane.pid}.`);
  // It dies before it can answer.
  await witness.session.ask("kill").catch(() => {});
}

/** A request without a session may go to any worker: so tracks without sessions are met as well. */
async function look() {
  try {
    const response = await fetch("/whoami", { cache: "no-store" });
    if (!response.ok) return;
    const who = await response.json();
    meet(who);
    light(who.slot);
    address(who);
  } catch {
    // Nobody there now; the sessions will tell.
  }
}

// ---- Drawing

function figures() {
  $("#sessions").textContent = [...wagons].filter((wagon) => wagon.pid !== null).length;
  $("#answers").textContent = answers.toLocaleString("en");
  // A session whose owner has died is rightly unknown to all others; of the dead nothing is heard.
  const wrong = moved + disowned.filter(({ pid, at }) => heard.get(pid) > at + 1000).length;
  const shown = $("#astray [role=status]");
  // Written only when it changes: a screen reader reads it out.
  if (shown.textContent !== String(wrong)) shown.textContent = wrong;
  $("#astray").classList.toggle("bad", wrong > 0);
  for (const lane of lanes.values()) {
    const count = [...wagons].filter((wagon) => wagon.slot === lane.slot && wagon.pid === lane.pid).length;
    lane.element.ariaLabel = `worker ${lane.slot}, process ${lane.pid}`;
    $(".pid", lane.element).textContent = `pid ${lane.pid}`;
    $(".load", lane.element).textContent = `${count} ${count === 1 ? "session" : "sessions"}`;
    $(".kill", lane.element).disabled = count === 0;
    $(".kill", lane.element).ariaLabel = `Kill worker ${lane.slot}`;
  }
  const some = [...lanes.values()].map((lane) => lane.pid).at(-1);
  if (some) $("#kill").textContent = `kill -9 ${some}`;
  for (const button of document.querySelectorAll("[data-open]")) button.disabled = wagons.size >= MOST_SESSIONS;
  $("[data-close]").disabled = wagons.size === 0;
}

function address({ slot, client }) {
  if (!client) return;
  const strong = document.createElement("b");
  strong.textContent = client;
  $("#address").replaceChildren(`Just now ${slot} saw you as `, strong, ". That is your own address, not a header that would have to be believed.");
}

function news(text) {
  $("#news").textContent = text;
}

/** Lays the line from the port to every row of every track. */
function lay() {
  const lines = [...lanes.values()].flatMap((lane) => rows(lane).map((y) => line(y, yard.clientWidth - 12)));
  const draw = (name) => `<path class="${name}" d="${lines.join("")}"/>`;
  $("#rails").innerHTML = ["sleepers", "rail", "bed"].map(draw).join("");
}

/** Where the rails of a track lie, one for each row of wagons. */
function rows(lane) {
  const track = $(".track", lane.element);
  const height = parseFloat(getComputedStyle(track).gridAutoRows);
  const top = place(track).top;
  return Array.from({ length: Math.max(1, Math.round(track.clientHeight / height)) }, (_, row) => top + (row + 1) * height - 12);
}

/** From the port down, and along a row up to `x`. */
function line(y, x) {
  const gutter = parseFloat(getComputedStyle(yard).paddingLeft);
  const [from, bend] = [Math.min(44, gutter / 2), Math.min(26, gutter / 2)];
  return `M${from} 46V${y - bend}q0 ${bend} ${bend} ${bend}H${x}`;
}

/** A light runs along the line, to its wagon if it has one: one connection is handed over. */
function light(slot, kind, wagon) {
  const lane = lanes.get(slot);
  if (!lane || still.matches || document.hidden) return;
  const goal = wagon ? place(wagon) : place($(".track", lane.element));
  const y = rows(lane).find((y) => y > goal.top) ?? goal.top;
  const element = document.createElement("i");
  element.className = "light";
  if (kind) element.dataset.kind = kind;
  element.style.offsetPath = `path("${line(y, goal.left + (wagon ? goal.width / 2 : 0))}")`;
  yard.append(element);
  const run = element.animate(
    [{ offsetDistance: "0%", opacity: 1 }, { opacity: 1, offset: 0.9 }, { offsetDistance: "100%", opacity: 0 }],
    { duration: LIGHT_TRAVELS, easing: "cubic-bezier(0.4, 0, 0.3, 1)" },
  );
  run.onfinish = () => element.remove();
}

/** Where an element lies in the yard. */
function place(element) {
  const [frame, { left, top, width }] = [yard.getBoundingClientRect(), element.getBoundingClientRect()];
  return { left: left - frame.left, top: top - frame.top, width };
}

function restart(element, name) {
  element.classList.remove(name);
  void element.offsetWidth; // makes the browser notice, so that the animation starts again
  element.classList.add(name);
}

function clone(template) {
  return $(template).content.firstElementChild.cloneNode(true);
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// ---- Begin

for (const button of document.querySelectorAll("[data-open]")) {
  button.onclick = () => open(button.dataset.open === "mixed" ? MIXED : [button.dataset.open]);
}
$("[data-close]").onclick = () => {
  for (const wagon of [...wagons]) wagon.close();
  figures();
};
addEventListener("pagehide", () => [...wagons].forEach((wagon) => wagon.session.close()));
new ResizeObserver(lay).observe(yard);
$("#port b").textContent = location.host;

await Promise.all(Array.from({ length: 6 }, look));
setInterval(look, 3000);
open(FIRST);
