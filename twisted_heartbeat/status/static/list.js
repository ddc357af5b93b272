// Copyright (c) twisted_heartbeat contributors.
// See LICENSE for details.

// The list of peers. Only the rows that can be seen exist, so that ten thousand cost no more than
// thirty. The focus stays on the list itself, and aria-activedescendant names the current row.

import { Hold } from "./hold.js";
import { cause, duration, roundTrip } from "./words.js";

const ROW = 56; // pixels, as in status.css
const SPARE = 6; // rows above and below those that can be seen

function part(tag, kind) {
  const element = document.createElement(tag);
  element.className = kind;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function describe(peer, now) {
  const age = duration(now - peer.since);
  if (peer.state === "up") return `up for ${age}`;
  if (peer.state === "unknown") return `not heard for ${age}`;
  const why = peer.state === "down" ? cause(peer.cause) : "";
  return why ? `${peer.state} for ${age}: ${why}` : `${peer.state} for ${age}`;
}

class Row {
  constructor(number) {
    this.element = part("div", "row");
    this.element.id = `row-${number}`;
    this.element.setAttribute("role", "option");
    this.mark = part("span", "mark");
    this.mark.setAttribute("aria-hidden", "true");
    this.name = part("bdi", "name");
    this.state = part("span", "about");
    this.carriers = part("span", "carriers");
    this.rtt = part("span", "rtt");
    this.element.append(this.mark, this.name, this.rtt, this.state, this.carriers);
    this.index = -1;
  }

  show(index, peer, total, isActive, isOpen, now) {
    if (this.index !== index) {
      this.index = index;
      this.element.style.transform = `translateY(${index * ROW}px)`;
      this.element.setAttribute("aria-posinset", index + 1);
    }
    const element = this.element;
    element.hidden = false;
    element.dataset.state = peer.state;
    element.setAttribute("aria-setsize", total);
    element.setAttribute("aria-selected", isOpen);
    element.classList.toggle("active", isActive);
    setText(this.name, peer.label);
    this.name.title = peer.label;
    setText(this.state, describe(peer, now));
    setText(this.carriers, peer.carriers.join(" "));
    setText(this.rtt, peer.state === "up" || peer.state === "suspect" ? roundTrip(peer.rtt) : "");
  }
}

export class List {
  constructor(fleet, now, open) {
    this.fleet = fleet;
    this.now = now;
    this.open = open;
    this.box = document.getElementById("list");
    this.space = document.getElementById("rows");
    this.hold = new Hold(this.box);
    this.rows = [];
    this.activeName = null;
    this.openName = null;
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.box.addEventListener("keydown", (event) => this.#key(event));
    this.box.addEventListener("click", (event) => this.#click(event));
    this.box.addEventListener("focus", () => this.#focused());
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  // The place of the current peer, which may have moved.
  #activeIndex() {
    const shown = this.fleet.shown;
    if (this.activeName === null) return -1;
    const last = shown[this.lastIndex];
    if (last && last.name === this.activeName) return this.lastIndex;
    this.lastIndex = shown.findIndex((peer) => peer.name === this.activeName);
    return this.lastIndex;
  }

  draw() {
    const shown = this.fleet.shown;
    const height = `${shown.length * ROW}px`;
    if (this.space.style.height !== height) this.space.style.height = height;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - SPARE);
    const end = Math.min(shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + SPARE);
    const needed = Math.ceil(this.box.clientHeight / ROW) + 2 * SPARE + 2;
    while (this.rows.length < needed) {
      const row = new Row(this.rows.length);
      this.rows.push(row);
      this.space.append(row.element);
    }
    const active = this.#activeIndex();
    const now = this.now();
    const used = new Set();
    let activeId = "";
    for (let index = first; index < end; index += 1) {
      const row = this.rows[index % this.rows.length];
      const peer = shown[index];
      used.add(row);
      row.show(index, peer, shown.length, index === active, peer.name === this.openName, now);
      if (index === active) activeId = row.element.id;
    }
    for (const row of this.rows) if (!used.has(row)) row.element.hidden = true;
    if (activeId) this.box.setAttribute("aria-activedescendant", activeId);
    else this.box.removeAttribute("aria-activedescendant");
  }

  setOpen(name) {
    this.openName = name;
    if (name !== null) this.activeName = name;
    this.draw();
  }

  scrollToTop() {
    this.box.scrollTop = 0;
  }

  #focused() {
    if (this.#activeIndex() < 0 && this.fleet.shown.length) {
      const first = Math.ceil(this.box.scrollTop / ROW);
      this.activeName = this.fleet.shown[Math.min(first, this.fleet.shown.length - 1)].name;
      this.draw();
    }
  }

  #moveTo(index) {
    const shown = this.fleet.shown;
    if (!shown.length) return;
    const target = Math.max(0, Math.min(shown.length - 1, index));
    this.activeName = shown[target].name;
    this.lastIndex = target;
    const top = target * ROW;
    const bottom = top + ROW - this.box.clientHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (bottom > this.box.scrollTop) this.box.scrollTop = bottom;
    this.draw();
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const active = this.#activeIndex();
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
    const targets = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: this.fleet.shown.length - 1,
    };
    if (event.key in targets) {
      event.preventDefault();
      this.#moveTo(targets[event.key]);
    } else if ((event.key === "Enter" || event.key === " ") && active >= 0) {
      event.preventDefault();
      this.open(this.activeName);
    }
  }

  #click(event) {
    const element = event.target.closest(".row");
    const row = this.rows.find((each) => each.element === element);
    const peer = row && this.fleet.shown[row.index];
    if (peer) {
      this.activeName = peer.name;
      this.open(peer.name);
    }
  }
}
