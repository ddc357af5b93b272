// Copyright (c) twisted_heartbeat contributors.
// See LICENSE for details.

// The page: the fleet, the list, one peer, the newest changes, the state of the stream.

import { Fleet, STATES } from "./fleet.js";
import { Hold } from "./hold.js";
import { List } from "./list.js";
import { changeEntry, changeWords, PeerPanel } from "./peer.js";
import { Stream } from "./stream.js";
import { count, peers, printable, timeOfDay } from "./words.js";

const REFRESH = 60000; // milliseconds: round-trip times are not in the stream
const ARRANGE = 200; // between two arrangements of the list
const NEWEST = 60;

const find = (id) => document.getElementById(id);
const fleet = new Fleet();
let clockOffset = 0;
let isOffline = false;
let newsAt = null; // the server's time of the last news
const clock = () => Date.now() / 1000 + clockOffset;
// Without news, ages stand still: nothing is known of the time after the last.
const now = () => (isOffline && newsAt !== null ? newsAt : clock());

const list = new List(fleet, now, (name) => {
  location.hash = `peer=${encodeURIComponent(name)}`;
});
const panel = new PeerPanel(now);

// Arranging: at most once in ARRANGE, however many changes come.

let arranging = 0;
let arrangedAt = -Infinity;

function arrangeSoon() {
  if (arranging) return;
  const wait = Math.max(0, arrangedAt + ARRANGE - performance.now());
  arranging = setTimeout(arrange, wait);
}

function arrange(isForced = false) {
  clearTimeout(arranging);
  arranging = 0;
  arrangedAt = performance.now();
  const isHeld = list.hold.isHeld && !isForced;
  fleet.arrange(isHeld);
  if (isHeld) arrangeSoon();
  drawSummary();
  drawCarriers();
  list.draw();
}

// The counts of peers that have not come yet; null when all have.
let expected = null;
let isFirstDrawing = true;

function drawSummary() {
  const counts = expected ?? fleet.counts;
  const total = Object.values(counts).reduce((sum, each) => sum + each, 0);
  for (const tile of find("tiles").children) {
    tile.querySelector(".count").textContent = count(counts[tile.dataset.state]);
    tile.classList.toggle("none", counts[tile.dataset.state] === 0);
  }
  for (const part of find("share").children) {
    part.style.flexGrow = counts[part.dataset.state];
    part.hidden = counts[part.dataset.state] === 0;
  }
  const shown = fleet.shown.length;
  const words = shown === total || expected ? peers(total) : `${count(shown)} of ${peers(total)}`;
  if (find("shown").textContent !== words) find("shown").textContent = words;
  const empty = find("empty");
  empty.hidden = shown > 0;
  empty.textContent = total ? "No peer matches." : "No peer has been heard yet.";
  drawTitle();
}

function drawTitle() {
  const { down } = expected ?? fleet.counts;
  const news = isOffline ? "offline" : down ? `${count(down)} down` : "";
  document.title = news ? `${news} – ${title}` : title;
}

function drawCarriers() {
  const select = find("carrier");
  const wanted = ["", ...fleet.carriers];
  if (wanted.length === select.options.length && wanted.every((each, i) => select.options[i].value === each)) return;
  const kept = select.value;
  const options = wanted.map((each) => new Option(each ? each.toUpperCase() : "All carriers", each));
  select.replaceChildren(...options);
  select.value = wanted.includes(kept) ? kept : "";
  fleet.filter.carrier = select.value;
}

// The newest changes.

let newest = [];
let drawn = 0; // the number of the last that is shown
const newestHold = new Hold(find("changes"));

function addNewest(changes) {
  const latest = newest.length ? newest[0].number : 0;
  const fresh = changes.filter((change) => change.number > latest).reverse();
  newest = [...fresh, ...newest].slice(0, NEWEST);
  drawNewest();
}

function drawNewest() {
  const fresh = newest.filter((change) => change.number > drawn);
  if (!fresh.length || newestHold.isHeld) return;
  drawn = fresh[0].number;
  const items = fresh.map((change) => {
    const button = document.createElement("a");
    button.className = "what";
    button.href = `#peer=${encodeURIComponent(change.name)}`;
    const name = document.createElement("bdi");
    name.className = "name";
    name.textContent = printable(change.name);
    const words = document.createElement("span");
    words.textContent = ` ${changeWords(change)}`;
    button.append(name, words);
    return changeEntry(change, now(), button);
  });
  const shown = find("changes");
  shown.prepend(...items);
  while (shown.children.length > NEWEST) {
    // The link that has the focus stays; otherwise the next Tab would begin at the top of the page.
    const last = shown.lastChild;
    (last.contains(document.activeElement) ? last.previousSibling : last).remove();
  }
}

// Another run of the server without a store begins to number anew.
let run = null;

function noteRun(id) {
  const [current] = id.split(".");
  if (run !== null && run !== current) {
    newest = [];
    drawn = 0;
    find("changes").replaceChildren();
    panel.forgetHistory();
  }
  run = current;
}

// The stream.

let isLoaded = false;

function showHead(snapshot, isFirst) {
  noteRun(snapshot.id);
  title = printable(snapshot.title);
  find("title").firstElementChild.textContent = title;
  expected = isLoaded ? null : snapshot.counts;
  addNewest(snapshot.changes);
  arrange(isFirst);
  // After the frame that shows them. The mark is for benchmarks and for the browser's own tools.
  if (isFirstDrawing) requestAnimationFrame(() => setTimeout(() => performance.mark("rows")));
  isFirstDrawing = false;
}

let title = "Heartbeat";
const CONNECTION = {
  live: "Live",
  connecting: "Connecting",
  offline: "Connection lost, trying again",
  locked: "A token is needed",
};

const stream = new Stream({
  at(seconds) {
    clockOffset = seconds - Date.now() / 1000;
    noteNews();
  },
  // The first time, the page shows what has come; later it keeps what it shows until all has come.
  arrived(snapshot, slice) {
    if (isLoaded) return;
    const isFirst = fleet.peers.size === 0;
    fleet.add(slice);
    if (isFirst) showHead(snapshot, true);
    else arrangeSoon();
  },
  loaded(snapshot) {
    const isFirst = !isLoaded;
    isLoaded = true;
    fleet.replace(snapshot.peers);
    showHead(snapshot, isFirst);
    document.documentElement.dataset.loaded = "true";
    if (!panel.name) showFromAddress();
  },
  changed(event, repeated) {
    noteNews();
    fleet.apply(event);
    if (!repeated) addNewest(event.changes);
    panel.changed(panel.name, fleet.peers.get(panel.name), event.changes);
    arrangeSoon();
  },
  connection(state) {
    const line = find("connection");
    if (line.dataset.state === state) return;
    line.dataset.state = state;
    isOffline = state === "offline";
    document.body.classList.toggle("offline", isOffline);
    drawConnection();
    drawTitle();
    list.draw();
    panel.tick();
  },
});

function drawConnection() {
  const { state } = find("connection").dataset;
  const shown = isOffline && newsAt !== null ? `; shown as of ${timeOfDay(newsAt, clock())}` : "";
  find("connection").querySelector(".words").textContent = CONNECTION[state] + shown;
}

// All may be loaded while the stream is away, for example while as many are open as may be.
function noteNews() {
  newsAt = clock();
  if (isOffline) drawConnection();
}

// One peer. The address of the page says which, so that it can be shared.

function showFromAddress() {
  let name = null;
  if (location.hash.startsWith("#peer=")) {
    try {
      name = decodeURIComponent(location.hash.slice("#peer=".length));
    } catch {
      name = null;
    }
  }
  if (name === panel.name) return;
  const hadPeer = panel.name !== null;
  panel.show(name, fleet.peers.get(name) ?? null);
  list.setOpen(name);
  if (name !== null) find("peer-name").focus({ preventScroll: false });
  else if (hadPeer) find("list").focus({ preventScroll: true });
}

function closePeer() {
  if (panel.name === null) return;
  history.pushState(null, "", location.pathname + location.search);
  showFromAddress();
}

window.addEventListener("hashchange", showFromAddress);
window.addEventListener("popstate", showFromAddress);
find("close").addEventListener("click", closePeer);
// By itself it would change the address, which says which peer is open.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("list").focus();
});

// Search, filter, order.

function filter(change) {
  Object.assign(fleet.filter, change);
  list.scrollToTop();
  arrange(true);
}

find("search").addEventListener("input", (event) => filter({ text: event.target.value }));
find("carrier").addEventListener("change", (event) => filter({ carrier: event.target.value }));
find("order").addEventListener("change", (event) => filter({ order: event.target.value }));
for (const tile of find("tiles").children) {
  tile.addEventListener("click", () => {
    const state = fleet.filter.state === tile.dataset.state ? "" : tile.dataset.state;
    for (const each of find("tiles").children) {
      each.setAttribute("aria-pressed", each.dataset.state === state);
    }
    filter({ state });
  });
}

document.addEventListener("keydown", (event) => {
  // In a search, the browser's own meaning comes first: to clear it.
  const clears = event.target.id === "search" && event.target.value;
  if (event.key === "Escape" && !clears) closePeer();
  const isTyping = event.target.closest("input, select");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    find("search").focus();
  }
});

setInterval(() => {
  if (document.hidden) return;
  list.draw();
  drawNewest();
  panel.tick();
}, 1000);
setInterval(() => {
  if (!document.hidden) stream.load().catch(() => {});
}, REFRESH);

window.addEventListener("pagehide", () => stream.stop());
window.addEventListener("pageshow", (event) => {
  if (event.persisted) stream.resume();
});

console.assert(STATES.length === find("tiles").children.length);
stream.start();
