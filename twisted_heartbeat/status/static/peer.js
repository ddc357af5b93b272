// Copyright (c) twisted_heartbeat contributors.
// See LICENSE for details.

// One peer: its state in words, its timeline, its round-trip times, its history.

import { ask } from "./ask.js";
import { capital, cause, count, detail, duration, fullTime, minuteOfDay, printable, roundTrip, timeOfDay } from "./words.js";

const POLL = 3000; // milliseconds
const SVG = "http://www.w3.org/2000/svg";
const MAX_POINTS = 400;
const LATEST = 100; // entries of the history that are drawn

const find = (id) => document.getElementById(id);

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function entry(tag, kind, text) {
  const element = document.createElement(tag);
  element.className = kind;
  element.textContent = text;
  return element;
}

// An entry of the history, and of the newest changes.
export function changeEntry(change, now, words) {
  const item = document.createElement("li");
  item.dataset.state = change.state;
  const mark = entry("span", "mark", "");
  mark.setAttribute("aria-hidden", "true");
  const time = entry("time", "when", timeOfDay(change.at, now));
  time.dateTime = new Date(change.at * 1000).toISOString();
  time.title = fullTime(change.at);
  item.append(mark, time, words);
  return item;
}

export function changeWords(change) {
  const why = change.state === "down" ? cause(change.cause) : "";
  return why ? `${change.state}: ${why}` : change.state;
}

// The states of a peer between two times, from its history, the oldest change first. Nothing is known
// of the time before knownFrom.
export function spans(history, state, from, until, knownFrom) {
  const found = [];
  let current = history.length ? history[0].previous : state;
  let since = Math.min(until, Math.max(from, knownFrom));
  if (since > from) found.push({ state: "unknown", from, until: since });
  for (const change of history) {
    if (change.at > from) {
      const end = Math.min(change.at, until);
      // A fall counts, however short it was.
      if (end > since || current === "down") found.push({ state: current, from: since, until: end });
      since = Math.max(since, end);
    }
    current = change.state;
  }
  if (until > since) found.push({ state: current, from: since, until });
  return found;
}

export class PeerPanel {
  constructor(now) {
    // Without the stream, now is the time of its last news; an answer about this peer may be newer.
    this.answeredAt = 0;
    this.now = () => Math.max(now(), this.answeredAt);
    this.name = null;
    this.span = 86400;
    this.isChosen = false; // whether the user has chosen the span
    this.points = [];
    this.timer = 0;
    for (const button of find("spans").children) {
      button.addEventListener("click", () => {
        this.isChosen = true;
        this.#setSpan(button);
        this.#drawTimeline();
      });
    }
  }

  #setSpan(chosen) {
    this.span = Number(chosen.dataset.span);
    for (const button of find("spans").children) {
      button.setAttribute("aria-pressed", button === chosen);
    }
  }

  // The shortest span that holds all that is known, unless the user has chosen one.
  #fitSpan() {
    if (this.isChosen) return;
    const now = this.now();
    const buttons = [...find("spans").children];
    const longest = buttons.at(-1);
    const known = this.#spans(now - Number(longest.dataset.span), now).find((span) => span.state !== "unknown");
    const age = known ? now - known.from : 0;
    this.#setSpan(buttons.find((button) => Number(button.dataset.span) >= age) ?? longest);
  }

  #spans(from, now) {
    const knownFrom = this.knownFrom ?? this.peer?.since ?? now;
    return spans(this.history, this.peer?.state ?? "unknown", from, now, knownFrom);
  }

  // Show a peer; null for none.
  show(name, peer) {
    clearTimeout(this.timer);
    this.name = name;
    find("peer").hidden = name === null;
    document.body.classList.toggle("with-peer", name !== null);
    if (name === null) return;
    this.history = [];
    this.points = [];
    this.answeredAt = 0;
    this.known = false; // whether the server has answered
    this.isMissing = false; // whether it has answered that there is no such peer
    this.sampledFrom = 0;
    this.knownFrom = null;
    this.peer = peer;
    find("history").replaceChildren();
    find("peer-name").querySelector("bdi").textContent = printable(name);
    this.#fitSpan();
    this.#drawFacts();
    this.#drawTimeline();
    this.#drawRoundTrips();
    this.#poll();
  }

  // The numbers of the changes begin anew.
  forgetHistory() {
    this.history = [];
  }

  // The peer has changed.
  changed(name, peer, changes) {
    if (name === null || name !== this.name) return;
    this.peer = peer ?? this.peer;
    if (peer) this.isMissing = false;
    const latest = this.history.at(-1)?.number ?? 0;
    for (const change of changes) {
      if (change.name === name && change.number > latest) this.history.push(change);
    }
    this.#drawFacts();
    this.#drawTimeline();
    this.#drawHistory();
  }

  // Once in a second.
  tick() {
    if (this.name !== null) this.#drawFacts();
  }

  async #poll() {
    const name = this.name;
    try {
      if (!document.hidden) {
        const address = `presence/${encodeURIComponent(name)}.json`;
        const told = await ask(address, { cache: "no-store" }, (answer) =>
          answer.ok ? answer.json() : answer.status,
        );
        if (this.name !== name) return;
        if (told === 404) this.#missed();
        else if (typeof told === "object") this.#loaded(told);
      }
    } catch {
      // The state of the connection is shown by the stream.
    }
    if (this.name !== name) return;
    this.timer = setTimeout(() => this.#poll(), POLL);
  }

  #missed() {
    this.peer = null;
    this.isMissing = true;
    this.#drawFacts();
  }

  #loaded(answer) {
    this.isMissing = false;
    if (answer.peer) this.peer = answer.peer;
    // What the stream has told since the answer was made stays.
    const newest = answer.history.at(-1)?.number ?? 0;
    const later = this.history.filter((change) => change.number > newest);
    this.history = [...answer.history, ...later];
    this.answeredAt = answer.at;
    this.knownFrom = answer.knownFrom;
    if (!this.known) {
      const { values, until, every } = answer.roundTrips;
      this.points = values.map((value, index) => [until - (values.length - 1 - index) * every, value]);
      this.sampledFrom = this.points[0]?.[0] ?? answer.at;
      this.#fitSpan();
      this.known = true;
    }
    if (this.peer && this.peer.rtt !== null && this.peer.state !== "down") {
      this.points.push([answer.at, this.peer.rtt]);
    }
    this.points = this.points.slice(-MAX_POINTS);
    this.#drawFacts();
    this.#drawTimeline();
    this.#drawRoundTrips();
    this.#drawHistory();
  }

  #drawFacts() {
    const peer = this.peer;
    // What is known of a peer that has just been forgotten stays as long as somebody looks at it.
    find("known").hidden = !peer && !this.history.length;
    find("facts").hidden = !peer;
    if (!peer) {
      find("peer").dataset.state = "unknown";
      find("peer-state").textContent = this.isMissing ? "There is no peer of this name now." : "";
      find("peer-cause").textContent = "";
      return;
    }
    const now = this.now();
    find("peer").dataset.state = peer.state;
    const words = { up: "Up", suspect: "Suspected", down: "Down", unknown: "Not heard" }[peer.state];
    find("peer-state").textContent =
      `${words} for ${duration(now - peer.since)}, since ${timeOfDay(peer.since, now)}`;
    const why = cause(peer.cause);
    const more = detail(peer.cause, peer.reason);
    const last = peer.state === "down" ? "" : "Last time down: ";
    const sentence = more ? `${why} (${more})` : why;
    find("peer-cause").textContent = sentence ? capital(`${last}${sentence}`) : "";
    const facts = [
      ["Last heard", peer.lastHeard === null ? "" : `${duration(now - peer.lastHeard)} ago`],
      ["Bound", peer.bound === null ? "none: its silence proves nothing" : `${peer.bound} s`],
      ["Round trip", peer.state === "down" ? "" : roundTrip(peer.rtt)],
      ["Carriers", peer.carriers.join(", ")],
      ["Address", printable(peer.address)],
      ["Lost messages", peer.losses === null ? "" : count(peer.losses)],
      ["Falls in the last hour", count(peer.falls)],
    ].filter(([, value]) => value !== "");
    const list = find("facts");
    while (list.children.length > 2 * facts.length) list.lastChild.remove();
    facts.forEach(([name, value], index) => {
      if (!list.children[2 * index]) list.append(entry("dt", "", ""), entry("dd", "", ""));
      const [term, fact] = [list.children[2 * index], list.children[2 * index + 1]];
      if (term.textContent !== name) term.textContent = name;
      if (fact.textContent !== value) fact.textContent = value;
    });
  }

  #drawTimeline() {
    const now = this.now();
    const from = now - this.span;
    const found = this.#spans(from, now);
    const drawn = [];
    const lasted = { up: 0, suspect: 0, down: 0, unknown: 0 };
    let falls = 0;
    for (const span of found) lasted[span.state] += span.until - span.from;
    // The short outages come last, and are never narrower than can be seen.
    for (const isOutage of [false, true]) {
      for (const span of found) {
        if ((span.state === "down" || span.state === "suspect") !== isOutage) continue;
        const width = (1000 * (span.until - span.from)) / this.span;
        const x = (1000 * (span.from - from)) / this.span;
        const shown = isOutage ? Math.max(3, width) : width;
        drawn.push(svg("rect", { x: Math.min(x, 1000 - shown), width: shown, y: 0, height: 30, class: `is-${span.state}` }));
        if (span.state === "down") falls += 1;
      }
    }
    const picture = find("timeline");
    picture.replaceChildren(...drawn);
    const known = this.span - lasted.unknown;
    const share = known > 0 ? (100 * (lasted.up + lasted.suspect)) / known : 0;
    const percent = share > 99.9 && share < 100 ? "> 99.9" : share.toFixed(share === 100 || share === 0 ? 0 : 1);
    const part = lasted.unknown > 0 ? ` of the ${duration(known)} known` : "";
    const words = known > 0 ? `up ${percent} %${part}` : "not heard";
    find("timeline-from").textContent = minuteOfDay(from, now);
    find("timeline-share").textContent = falls ? `${words}, ${count(falls)}× down` : words;
    picture.setAttribute("aria-label", `${words}${part ? "" : " of this time"}, down ${count(falls)} times, for ${duration(lasted.down)} in all`);
  }

  #drawRoundTrips() {
    const picture = find("roundtrips");
    const label = find("roundtrip-words");
    const values = this.points.map(([, value]) => value).filter((value) => value !== null);
    picture.toggleAttribute("hidden", values.length < 2);
    if (values.length < 2) {
      const since = `Not measured since ${timeOfDay(this.sampledFrom, this.now())}: sampled only while somebody looks`;
      label.textContent = values.length ? `${roundTrip(values[0])}, measured once` : this.known ? since : "";
      return;
    }
    const highest = Math.max(...values);
    const lowest = Math.min(...values);
    const begin = this.points[0][0];
    const length = Math.max(1, this.points.at(-1)[0] - begin);
    let path = "";
    let drawing = false;
    let last = null;
    for (const [at, value] of this.points) {
      if (value === null) {
        drawing = false;
        continue;
      }
      const x = (1000 * (at - begin)) / length;
      const y = 92 - (84 * value) / highest;
      path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      drawing = true;
      last = value;
    }
    const line = svg("path", { d: path, class: "line", "vector-effect": "non-scaling-stroke" });
    const ground = svg("line", { x1: 0, x2: 1000, y1: 92, y2: 92, class: "ground", "vector-effect": "non-scaling-stroke" });
    picture.replaceChildren(ground, line);
    const words = `${roundTrip(last)} now; ${roundTrip(lowest)} to ${roundTrip(highest)} in ${duration(length)}`;
    picture.setAttribute("aria-label", words);
    label.textContent = words;
  }

  #drawHistory() {
    const now = this.now();
    const latest = this.history.slice(-LATEST).reverse();
    const list = find("history");
    if (list.dataset.latest === String(latest[0]?.number) && list.children.length === latest.length) return;
    list.dataset.latest = latest[0]?.number;
    list.replaceChildren(
      ...latest.map((change) => {
        const words = entry("span", "what", changeWords(change));
        const reason = change.state === "down" ? detail(change.cause, change.reason) : "";
        if (reason) words.append(entry("span", "reason", reason));
        return changeEntry(change, now, words);
      }),
    );
  }
}
