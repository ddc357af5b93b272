// Copyright (c) twisted_heartbeat contributors.
// See LICENSE for details.

// The snapshot of the fleet, and the stream of changes that follows it.

import { ask, SILENT_AFTER } from "./ask.js";

const RETRY = 3000; // milliseconds
const LOCKED = "locked";

function numberOf(id) {
  return Number(id.split(".")[1] ?? 0);
}

export class Stream {
  // The handlers: loaded(snapshot), changed(event), at(seconds), connection(state).
  constructor(handlers) {
    this.handlers = handlers;
    this.lastId = null;
    this.source = null;
    this.silence = 0;
    this.retry = 0;
    this.loading = null;
    this.hasAsked = false;
    this.begun = -Infinity;
  }

  async start() {
    this.begun = performance.now();
    try {
      await this.load();
      this.#open();
    } catch (error) {
      this.handlers.connection(error.message === LOCKED ? "locked" : "offline");
      this.#later(() => this.start());
    }
  }

  // A page that the browser keeps for its "back" button would hold its connection, of which a browser
  // has no more than six to one server.
  stop() {
    clearTimeout(this.retry);
    clearTimeout(this.silence);
    this.source?.close();
    this.source = null;
  }

  resume() {
    if (this.lastId === null) this.start();
    else this.#open();
  }

  // Load all. Changes that come meanwhile may be newer than the answer, and are applied once more.
  load() {
    this.loading ??= this.#load().finally(() => {
      this.loading = null;
    });
    return this.loading;
  }

  async #load() {
    this.meanwhile = [];
    try {
      // Without options the first time, because the browser has asked for it already. Later not by
      // its cache, which would wait for an answer that does not come.
      const options = this.hasAsked ? { cache: "no-store" } : {};
      this.hasAsked = true;
      const snapshot = await ask("presence.json", options, (answer, heard) => {
        if (!answer.ok) throw new Error(answer.status === 401 ? LOCKED : "unavailable");
        return this.#read(answer, heard);
      });
      this.handlers.loaded(snapshot);
      this.lastId ??= snapshot.id;
      for (const [id, event] of this.meanwhile) {
        if (numberOf(id) > numberOf(snapshot.id)) this.handlers.changed(event, true);
      }
    } finally {
      this.meanwhile = null;
    }
  }

  // The first line is all but the peers; each other line is a slice of them, the worst first.
  async #read(answer, heard) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let snapshot = null;
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      heard();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (snapshot === null) {
          snapshot = JSON.parse(`${line}]}`);
          this.handlers.at(snapshot.at);
        } else {
          const slice = JSON.parse(`[${line.endsWith(",") ? line.slice(0, -1) : line}]`);
          snapshot.peers.push(...slice);
          this.handlers.arrived(snapshot, slice);
        }
      }
    }
    if (rest !== "]}") throw new Error("the answer was cut off");
    return snapshot;
  }

  #open() {
    clearTimeout(this.retry);
    this.source?.close();
    const source = new EventSource(`events?since=${encodeURIComponent(this.lastId)}`);
    this.source = source;
    this.#listen();
    source.onopen = () => {
      this.#listen();
      this.handlers.connection("live");
    };
    source.onerror = () => {
      this.handlers.connection("offline");
      // The browser tries again by itself, unless the server has answered with an error.
      if (source.readyState === EventSource.CLOSED) this.#later(() => this.#open());
    };
    source.addEventListener("time", (message) => {
      this.#listen();
      this.handlers.at(JSON.parse(message.data).at);
    });
    source.addEventListener("changes", (message) => {
      this.#listen();
      this.lastId = message.lastEventId;
      const event = JSON.parse(message.data);
      this.meanwhile?.push([message.lastEventId, event]);
      this.handlers.changed(event, false);
    });
    // What is missing is loaded as for a new page, however often that fails, and the stream goes on
    // from there. A loading that is under way may be older than the gap, and then there is another.
    source.addEventListener("gap", () => {
      this.stop();
      this.lastId = null;
      this.handlers.connection("connecting");
      this.#later(() => this.start(), this.begun + RETRY - performance.now());
    });
  }

  // A browser does not notice that a connection is dead as long as it sends nothing itself.
  #listen() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.handlers.connection("offline");
      this.#open();
    }, SILENT_AFTER);
  }

  #later(action, wait = RETRY) {
    clearTimeout(this.retry);
    this.retry = setTimeout(action, wait);
  }
}
