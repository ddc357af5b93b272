# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Draws the state machine that keeps a link up, from the machine itself: one picture of a client that
runs, and one of a client that stops.

Run it with C{python docs/draw_machine.py}.  A test fails while the pictures are not those of the
code.
"""

from __future__ import annotations

from collections import defaultdict
from math import hypot
from pathlib import Path

from twisted_heartbeat.core.reconnector import _makeMachine

INTO = Path(__file__).resolve().parent / "_static"

PLACES = {
    "running": {
        "stopped": (90, 60),
        "connecting": (310, 60),
        "preparing": (530, 60),
        "connected": (750, 60),
        "rejecting": (640, 190),
        "cleaning": (750, 320),
        "deciding": (310, 320),
        "waiting": (90, 190),
        "gaveUp": (90, 320),
    },
    "stopping": {
        "connecting": (90, 60),
        "preparing": (310, 60),
        "connected": (530, 60),
        "rejecting": (750, 60),
        "cancelling": (90, 190),
        "closing": (530, 190),
        "cleaning": (750, 190),
        "ending": (750, 320),
        "stopped": (420, 320),
        "waiting": (90, 320),
        "deciding": (250, 440),
        "gaveUp": (590, 440),
    },
}
"""The centre of each state, by picture."""

WIDTH, HEIGHT = 116, 36
BEND = {
    ("running", "stopped", "deciding"): -0.14,
    ("running", "gaveUp", "connecting"): 0.14,
    ("running", "preparing", "cleaning"): -0.42,
}
"""How far an arrow is bent to the left of its way, as a part of its length."""

STOPPING = {"cancelling", "closing", "ending"}
STYLE = """\
text { font: 13px sans-serif; fill: #222; text-anchor: middle; dominant-baseline: central }
.label { font-size: 12px; fill: #0072B2; paint-order: stroke; stroke: #fff; stroke-width: 4px }
rect { fill: #fff; stroke: #4D4D4D; stroke-width: 1.5 }
path { fill: none; stroke: #9A9A9A; stroke-width: 1.5; marker-end: url(#tip) }
marker path { fill: #9A9A9A; stroke: none; marker-end: none }"""


def transitions() -> list[tuple[str, str, str]]:
    """
    Return all transitions of the machine, as state, input and next state, without those that stay
    in their state.
    """
    automaton = _makeMachine().__automat_automaton__
    found = {
        (before.name, str(getattr(word, "__name__", word)), after.name)
        for before, word, after, _ in automaton.allTransitions()
        if before is not after
    }
    return sorted(found)


def inPicture(name: str, before: str, word: str) -> bool:
    """
    Whether a transition belongs to a picture: to stop, or all else.
    """
    return (word == "stop" or before in STOPPING) == (name == "stopping")


def border(centre: tuple[float, float], toward: tuple[float, float]) -> tuple[float, float]:
    """
    Return where the way from the centre of a box meets its border.
    """
    x, y = toward[0] - centre[0], toward[1] - centre[1]
    scale = min(
        (WIDTH / 2 + 3) / abs(x) if x else float("inf"),
        (HEIGHT / 2 + 3) / abs(y) if y else float("inf"),
    )
    return centre[0] + scale * x, centre[1] + scale * y


def arrow(start: tuple[float, float], end: tuple[float, float], bend: float, label: str) -> str:
    """
    Draw an arrow from box to box, with its label in the middle.
    """
    x, y = end[0] - start[0], end[1] - start[1]
    length = hypot(x, y)
    bend *= length
    control = (
        (start[0] + end[0]) / 2 + bend * y / length,
        (start[1] + end[1]) / 2 - bend * x / length,
    )
    begin, finish = border(start, control), border(end, control)
    middle = [(a + 2 * c + b) / 4 for a, c, b in zip(begin, control, finish, strict=True)]
    points = [f"{value:.1f}" for pair in (begin, control, finish) for value in pair]
    return (
        f'<path d="M{points[0]},{points[1]} Q{points[2]},{points[3]} {points[4]},{points[5]}"/>\n'
        f'<text class="label" x="{middle[0]:.1f}" y="{middle[1]:.1f}">{label}</text>\n'
    )


def picture(name: str) -> str:
    """
    Draw one picture as SVG.
    """
    places = PLACES[name]
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for before, word, after in transitions():
        if inPicture(name, before, word):
            arrows[before, after].append(word)
    height = max(y for _, y in places.values()) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 {height}">\n',
        f"<title>The state machine: a client that is {name}</title>\n",
        f"<style>\n{STYLE}\n</style>\n",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0,0 L10,5 L0,10 z"/></marker></defs>\n',
        f'<rect width="840" height="{height}" style="stroke: none"/>\n',
    ]
    for (before, after), words in sorted(arrows.items()):
        both = (after, before) in arrows
        bend = BEND.get((name, before, after), 0.18 if both else 0.0)
        parts.append(arrow(places[before], places[after], bend, ", ".join(words)))
    for state, (x, y) in places.items():
        parts.append(
            f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" '
            f'height="{HEIGHT}" rx="8"/>\n<text x="{x}" y="{y}">{state}</text>\n'
        )
    return "".join([*parts, "</svg>\n"])


def main() -> None:
    """
    The command.
    """
    for name in PLACES:
        (INTO / f"machine-{name}.svg").write_text(picture(name), encoding="utf-8")


if __name__ == "__main__":
    main()
