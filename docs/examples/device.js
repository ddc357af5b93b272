// A device that speaks the protocol of docs/wire-protocol.md, version 1, in Node.js.
//     node device.js HOST PORT NAME [BOUND]
// It has a bound of its own: it pings a silent server, and keeps what it offers. With a bound of 0 it
// watches the server by what that says of itself, and speaks when it is asked.
"use strict";
const net = require("net");

const SECOND = Number(process.env.SECOND || 1000); // of its own pace, in ms
const LIMIT = 1048576; // the longest DATA that it takes
const EVERY = 10 * SECOND, PATIENCE = 30 * SECOND, CLOSING = 5 * SECOND, STABLE = 10 * SECOND;
const HOUR = 3600000;
const HELLO = 1, PING = 2, PONG = 3, DATA = 4, GOODBYE = 5, END = 6;
const USUAL = "usual", SPREAD = "spread", SLOW = "slow";

const [host, port, name] = process.argv.slice(2);
const own = Number(process.argv[5] === undefined ? 8 : process.argv[5]) * 1000; // the bound, in ms
const timeout = own * 3 / 7;
let interval = own * 4 / 7, failures = 0;
const now = () => performance.now();
const utf8 = new TextDecoder("utf-8", { fatal: true });

class Link {
  constructor() {
    this.bound = interval + timeout;
    this.buffer = Buffer.alloc(0);
    this.greeted = this.ended = this.told = this.up = false;
    this.offers = PATIENCE; // until the server has said hello
    this.hold = this.needs = this.token = this.pinged = 0; // pinged: how often into this silence
    this.outcome = { why: "the link was lost", pace: SPREAD, revokes: false };
    this.socket = net.connect({ host, port, noDelay: true, allowHalfOpen: true });
    this.giveUp = setTimeout(() => this.fail("not connected", USUAL), PATIENCE);
    this.socket.on("connect", () => this.begin());
    this.socket.on("data", (data) => this.told || this.hear(data));
    this.socket.on("error", (error) => this.lost(error));
    this.socket.on("end", () => this.socket.destroy()); // FIN: after a goodbye, the end of it
    this.socket.on("close", () => this.over());
  }

  begin() {
    clearTimeout(this.giveUp);
    this.up = true;
    this.began = this.heard = this.said = now();
    const times = Buffer.alloc(8);
    times.writeUInt32BE(Math.round(this.bound), 0);
    times.writeUInt32BE(Math.round(this.bound), 4);
    this.send(HELLO, Buffer.concat([times, Buffer.from(name)]));
    console.log("connected");
    this.reading = setInterval(() => this.send(DATA, Buffer.from("21.5")), EVERY);
    this.clock = setInterval(() => this.look(), 10);
  }

  send(kind, body = Buffer.alloc(0), token = 0, hold = 0) {
    if (this.told || !this.socket.writable) return;
    const header = Buffer.alloc(12);
    header.writeUInt8(1, 0);
    header.writeUInt8(kind, 1);
    header.writeUInt16BE(hold, 2);
    header.writeUInt32BE(token, 4);
    header.writeUInt32BE(body.length, 8);
    this.said = now();
    this.socket.write(Buffer.concat([header, body]));
  }

  // The timers word, ping and verdict. Node reads before it calls this, so a silence was one.
  look() {
    if (this.told) return;
    const silence = now() - this.heard, bound = this.bound || this.hold || this.offers;
    const promise = Math.min(this.bound || Infinity, this.needs || Infinity);
    if (bound && silence >= bound) {
      this.fail("the server was silent", USUAL);
    } else if (this.pinged < 2 && silence >= bound - timeout / (1 + this.pinged) && this.bound) {
      this.pinged += 1;
      this.token += 1;
      this.send(PING, undefined, this.token, Math.min(0xffff, Math.ceil(this.bound / 100)));
    } else if (now() - this.said >= 0.75 * promise && this.socket.writableLength === 0) {
      this.send(PONG);
    }
  }

  hear(data) {
    this.heard = now();
    this.pinged = 0;
    this.buffer = Buffer.concat([this.buffer, data]);
    while (this.buffer.length && !this.told && this.up) {
      if (this.buffer[0] !== 1) return this.violation();
      if (this.buffer.length < 12) return;
      const kind = this.buffer[1], length = this.buffer.readUInt32BE(8);
      if (!this.allows(kind, length)) return this.violation();
      if (this.buffer.length < 12 + length) return;
      const head = this.buffer.subarray(0, 12), body = this.buffer.subarray(12, 12 + length);
      this.buffer = this.buffer.subarray(12 + length);
      this.take(kind, head, body);
    }
  }

  allows(kind, length) {
    const open = this.greeted && !this.ended;
    switch (kind) {
      case HELLO: return !this.greeted && length >= 8 && length <= 263;
      case PING: case PONG: return length === 0;
      case DATA: return open && length <= LIMIT;
      case GOODBYE: return length >= 8 && length <= 1032;
      case END: return open && length === 0;
      default: return kind >= 128 && length <= LIMIT;
    }
  }

  take(kind, head, body) {
    if (kind === HELLO || kind === GOODBYE) {
      try { utf8.decode(body.subarray(8)); } catch { return this.violation(); }
    }
    if (kind === HELLO) {
      this.greeted = true;
      this.needs = body.readUInt32BE(0) && Math.max(200, body.readUInt32BE(0));
      this.offers = body.readUInt32BE(4) && Math.max(200, body.readUInt32BE(4));
      console.log("the server said hello");
    } else if (kind === PING) {
      this.hold = head.readUInt16BE(2) && Math.max(200, head.readUInt16BE(2) * 100);
      this.send(PONG, undefined, head.readUInt32BE(4));
    } else if (kind === END) {
      this.ended = true;
    } else if (kind === GOODBYE) {
      this.leave(head.readUInt32BE(4), body);
    }
  }

  leave(code, body) {
    const after = Math.min(HOUR, body.readUInt32BE(0));
    const spread = Math.min(HOUR, body.readUInt32BE(4));
    const hint = after + spread >= 1000 ? after + Math.random() * spread : 0;
    const refused = code === 1 || code === 2, pace = refused ? SLOW : SPREAD;
    const why = "the server said goodbye", revokes = !this.stable();
    this.outcome = { why, pace, hint, refused, revokes };
    if (code === 3) interval *= 2;
    this.told = true; // nothing is written or read any more
    this.socket.end(); // FIN
    setTimeout(() => this.socket.destroy(), CLOSING).unref();
  }

  stable() { return now() - this.began >= STABLE; }

  violation() {
    this.fail("the server broke the protocol", SLOW, !this.stable());
  }

  fail(why, pace, revokes = false) {
    this.outcome = { why, pace, revokes };
    // Before it is connected, a reset would wait until it is: for minutes, if nothing answers.
    if (this.up) this.socket.resetAndDestroy(); else this.socket.destroy();
    this.up = false;
  }

  lost(error) {
    if (this.up) return;
    const noName = ["ENOTFOUND", "EAI_AGAIN"].includes(error.code);
    const noWay = ["EHOSTUNREACH", "EHOSTDOWN", "ENETUNREACH", "ENETDOWN"].includes(error.code);
    const pace = noName || noWay ? SLOW : error.code === "ECONNREFUSED" ? SPREAD : this.outcome.pace;
    if (!this.began) this.outcome = { why: "not connected", pace, revokes: false };
  }

  over() {
    clearTimeout(this.giveUp);
    clearInterval(this.reading);
    clearInterval(this.clock);
    const { why, pace, hint = 0, revokes, refused } = this.outcome;
    failures = this.greeted && !refused && !revokes ? 1 : failures + 1;
    const width = Math.min(60, 2 ** (failures - 1)), wide = Math.min(60, 12 * width);
    let least = 0, most = width;
    if (pace !== USUAL) [least, most] = [wide / 2, wide];
    if (pace === SPREAD) least = failures === 1 ? 0.1 : Math.min(12, least);
    const drawn = (least + Math.random() * (most - least)) * SECOND;
    const wait = hint === 0 ? drawn : pace === SLOW ? Math.max(drawn, hint) : hint;
    console.log(`${why}, next attempt in ${(wait / 1000).toFixed(1)} s`);
    setTimeout(() => new Link(), wait);
  }
}

new Link();
