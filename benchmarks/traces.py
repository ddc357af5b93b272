# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Traces of a living peer's heartbeats, one a second: generated from a seed, and one recorded.

The recorded trace, C{traces.json}, has heartbeats over loopback, 10 ms apart, on an overloaded
machine of two cores.  Its time is stretched so that they are one second apart.  Record another with
C{python benchmarks/traces.py record}.
"""

from __future__ import annotations

import json
import random
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep

from detectors import INTERVAL, Trace

RECORDING = Path(__file__).with_name("traces.json")

RECORDED_INTERVAL = 0.01
RECORDED_SECONDS = 40.0
LATE = 0.004
"""Seconds: a timer of the recorder that is later than this counts as a stall."""

HOGS = 4
"""Processes that load the processors during the recording."""


def inOrder(times: Iterator[float]) -> list[float]:
    """
    Put arrivals in order, because TCP delivers nothing before earlier bytes.
    """
    latest = 0.0
    ordered = []
    for when in times:
        latest = max(latest, when)
        ordered.append(latest)
    return ordered


def normal(draw: random.Random, count: int) -> Trace:
    """
    A quiet network: 100 ms of delay, with a deviation of 20 ms.
    """
    return Trace(inOrder(number + max(0.0, draw.gauss(0.1, 0.02)) for number in range(count)))


def heavyTail(draw: random.Random, count: int) -> Trace:
    """
    A radio link: a delay of 50 ms mostly, and of seconds once in a thousand (Pareto).
    """
    return Trace(
        inOrder(number + min(30.0, 0.05 * draw.paretovariate(1.5)) for number in range(count))
    )


def bursts(draw: random.Random, count: int) -> Trace:
    """
    About once in 200 seconds nothing passes for up to four seconds, and then everything at once.
    """

    def times() -> Iterator[float]:
        heldUntil = 0.0
        for number in range(count):
            if draw.random() < 1 / 200:
                heldUntil = number + draw.uniform(0.5, 4.0)
            yield max(heldUntil, number + max(0.0, draw.gauss(0.1, 0.02)))

    return Trace(inOrder(times()))


def ownStalls(draw: random.Random, count: int) -> Trace:
    """
    The quiet network; about once in 300 seconds this process does not run for up to 30 seconds.
    """
    stalls = []
    when = draw.expovariate(1 / 300)
    while when < count:
        end = when + draw.uniform(0.2, 30.0)
        stalls.append((when, end))
        when = end + draw.expovariate(1 / 300)
    return Trace(normal(draw, count).arrivals, stalls)


def recorded(draw: random.Random, count: int) -> Trace:
    """
    The recorded trace, at its own length.
    """
    written = json.loads(RECORDING.read_text(encoding="utf-8"))
    scale = INTERVAL / RECORDED_INTERVAL / 1e6
    arrivals = [scale * sum_ for sum_ in _sums(written["arrivals"])]
    stalls = [(scale * begin, scale * end) for begin, end in written["stalls"]]
    return Trace(arrivals, stalls)


TRACES: dict[str, Callable[[random.Random, int], Trace]] = {
    "normal": normal,
    "heavy tail": heavyTail,
    "bursts": bursts,
    "own stalls": ownStalls,
    "recorded": recorded,
}


def _sums(differences: list[int]) -> Iterator[int]:
    total = 0
    for difference in differences:
        total += difference
        yield total


# Recording.


def speak(port: int) -> None:
    """
    Send the heartbeats, as the peer.
    """
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = monotonic()
        for number in range(int(RECORDED_SECONDS / RECORDED_INTERVAL)):
            sleep(max(0.0, began + number * RECORDED_INTERVAL - monotonic()))
            one.sendall(b"!")


def listen(one: socket.socket) -> dict[str, list[object]]:
    """
    Receive the heartbeats.

    @return: microseconds between arrivals, and the stalls of this process, in microseconds since
        the first arrival.
    """
    began = monotonic()
    arrivals: list[float] = []
    stalls: list[tuple[float, float]] = []
    due = began
    while True:
        readable, _, _ = select.select([one], [], [], max(0.0, due - monotonic()))
        now = monotonic()
        if now - due > LATE:
            stalls.append((due, now))
        if now >= due:
            due = now + LATE / 2
        if readable:
            data = one.recv(4096)
            if not data:
                break
            arrivals += [now] * len(data)
    first = arrivals[0]
    marks = [round((when - first) * 1e6) for when in arrivals]
    return {
        "arrivals": [0, *(later - sooner for sooner, later in pairwise(marks))],
        "stalls": [
            (round((begin - first) * 1e6), round((end - first) * 1e6)) for begin, end in stalls
        ],
    }


def record() -> None:
    """
    Record for C{RECORDED_SECONDS}.
    """
    with socket.create_server(("127.0.0.1", 0)) as port:
        number = str(port.getsockname()[1])
        peer = subprocess.Popen([sys.executable, __file__, "speak", number])
        hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)]
        try:
            one, _ = port.accept()
            with one:
                written = listen(one)
        finally:
            for child in [peer, *hogs]:
                child.kill()
                child.wait()
    RECORDING.write_text(json.dumps(written, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["record"]:
        record()
    elif sys.argv[1:2] == ["speak"]:
        speak(int(sys.argv[2]))
    else:
        raise SystemExit(__doc__)
