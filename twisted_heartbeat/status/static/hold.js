// Copyright (c) twisted_heartbeat contributors.
// See LICENSE for details.

// Whether a person is at an element just now. Its rows then stay where they are: otherwise a row could
// move away between the look at it and the click.

const HOLD = 2000; // milliseconds from the last movement or key

export class Hold {
  constructor(element) {
    this.until = 0;
    const hold = () => {
      this.until = performance.now() + HOLD;
    };
    for (const kind of ["pointermove", "pointerdown", "wheel", "keydown"]) {
      element.addEventListener(kind, hold, { passive: true });
    }
    element.addEventListener("pointerleave", () => {
      this.until = 0;
    });
  }

  get isHeld() {
    return performance.now() < this.until;
  }
}
