// Copyright (c) twisted_heartbeat contributors.
// See LICENSE for details.

// The peers, and which of them are shown in which order.

import { cause, printable } from "./words.js";

export const STATES = ["up", "suspect", "down", "unknown"];

const WORST = { down: 0, suspect: 1, unknown: 2, up: 3 };

// Compared as plain text, ten thousand names are in order after a few milliseconds; with a collator
// it takes ten times as long. Numbers are padded, so that sensor-9 comes before sensor-10.
function orderKey(name) {
  return name.toLowerCase().replace(/\d{1,12}/g, (digits) => digits.padStart(12, "0"));
}

function byName(one, other) {
  return one.key < other.key ? -1 : one.key > other.key ? 1 : 0;
}

const ORDERS = {
  name: byName,
  state: (one, other) =>
    WORST[one.state] - WORST[other.state] || (one.state === "up" ? 0 : other.since - one.since) || byName(one, other),
  changed: (one, other) => other.since - one.since || byName(one, other),
  rtt: (one, other) => (other.rtt ?? -1) - (one.rtt ?? -1) || byName(one, other),
  falls: (one, other) => other.falls - one.falls || byName(one, other),
};

export class Fleet {
  constructor() {
    this.peers = new Map();
    this.shown = [];
    this.counts = { up: 0, suspect: 0, down: 0, unknown: 0 };
    this.carriers = [];
    this.filter = { text: "", state: "", carrier: "", order: "state" };
  }

  replace(peers) {
    this.peers.clear();
    for (const peer of peers) this.#put(peer);
  }

  add(peers) {
    for (const peer of peers) this.#put(peer);
  }

  apply(event) {
    const told = new Set(event.peers.map((peer) => peer.name));
    for (const change of event.changes) if (!told.has(change.name)) this.#change(change);
    for (const peer of event.peers) this.#put(peer);
    for (const name of event.gone) this.peers.delete(name);
  }

  // In a storm the changes come without their peers.
  #change(change) {
    const known = this.peers.get(change.name);
    const isDown = change.state === "down";
    const carriers = known ? known.carriers : [];
    // A fall that the peer was loaded with comes once more if it was told at the same time.
    const isFall = isDown && !(known && change.at <= known.told);
    this.#put({
      name: change.name,
      state: change.state,
      since: change.at,
      carriers: carriers.includes(change.carrier) ? carriers : [...carriers, change.carrier],
      lastHeard: known ? known.lastHeard : null,
      bound: change.bound,
      rtt: known ? known.rtt : null,
      losses: known ? known.losses : null,
      address: change.address,
      cause: isDown ? change.cause : known ? known.cause : null,
      reason: isDown ? change.reason : known ? known.reason : "",
      falls: (known ? known.falls : 0) + (isFall ? 1 : 0),
    });
  }

  #put(peer) {
    const known = this.peers.get(peer.name);
    peer.label = known ? known.label : printable(peer.name);
    peer.key = known ? known.key : orderKey(peer.name);
    peer.words = "";
    // The time of the newest change that is known of.
    peer.told = known ? Math.max(known.told, peer.since) : peer.since;
    this.peers.set(peer.name, peer);
  }

  // What a search looks at. It is made when it is first needed.
  #wordsOf(peer) {
    if (!peer.words) {
      const parts = [peer.label, peer.address, peer.cause ?? "", cause(peer.cause), peer.reason];
      peer.words = parts.join("\n").toLowerCase();
    }
    return peer.words;
  }

  // While it is held, the list has the peers that it had, in their order, as they are now.
  arrange(isHeld) {
    const { text, state, carrier, order } = this.filter;
    const wanted = text.trim().toLowerCase();
    const counts = { up: 0, suspect: 0, down: 0, unknown: 0 };
    const carriers = new Set();
    const shown = [];
    for (const peer of this.peers.values()) {
      counts[peer.state] += 1;
      for (const each of peer.carriers) carriers.add(each);
      if (state && peer.state !== state) continue;
      if (carrier && !peer.carriers.includes(carrier)) continue;
      if (wanted && !this.#wordsOf(peer).includes(wanted)) continue;
      shown.push(peer);
    }
    this.counts = counts;
    this.carriers = [...carriers].sort();
    this.shown = isHeld
      ? this.shown.map((peer) => this.peers.get(peer.name) ?? peer)
      : shown.sort(ORDERS[order]);
  }
}
