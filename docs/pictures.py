# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Takes the pictures of the status page: a made-up fleet in a real browser.

It needs Chromium and its driver (Debian: chromium, chromium-driver) and the package's extra
C{test}.  Run it with C{python docs/pictures.py [--into FOLDER]}.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock, LoopingCall, deferLater, react
from twisted.web.server import Site

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from tests.status.browser import Browser  # noqa: E402
from tests.status.fleet import Fleet  # noqa: E402
from twisted_heartbeat import (  # noqa: E402
    Cause,
    MemoryStore,
    PeerHung,
    PeerReset,
    PeerSilent,
    StatusResource,
)

INTO = CHECKOUT / "docs" / "_static" / "status"

DAY = 86_400
KINDS = ("boiler", "gateway", "meter", "pump", "sensor", "valve")
CARRIERS = ("tcp", "tcp", "tls", "udp", "http")

WIDE, PHONE = (1180, 740), (390, 780)

# The name of a picture, whether it is dark, its size, and whether one peer is opened.
FEW = [("light", False, WIDE, False)]
MANY = [
    ("light", False, WIDE, True),
    ("dark", True, WIDE, True),
    ("phone-light", False, PHONE, False),
    ("phone-dark", True, PHONE, True),
]


class Story:
    """
    A day of a fleet, in virtual time that ends now.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._clock = Clock()
        began = time.time() - DAY
        self.fleet = Fleet(
            self._clock,
            store=MemoryStore(keep=200_000),
            wallClock=lambda: began + self._clock.seconds(),
        )
        self.wait(0)
        self._carriers: dict[str, str] = {}

    def wait(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self._clock.advance(seconds)

    def catchUp(self, began: float) -> None:
        """
        Let the time pass that has passed since then.
        """
        self.wait(max(0.0, time.time() - began - self._clock.seconds() + DAY))

    def up(self, name: str) -> None:
        """
        Let a peer come.
        """
        carrier = self._carriers.setdefault(name, self._draw.choice(CARRIERS))
        self.fleet.up(name, carrier=carrier, rtt=self._draw.lognormvariate(-3.8, 0.6))

    def down(self, name: str) -> None:
        """
        Let a peer go.
        """
        causes: list[Cause] = [
            PeerSilent("nothing received for 35.004 s, the bound is 35 s"),
            PeerHung("nothing received for 35.001 s, the bound is 35 s; the peer's kernel answers"),
            PeerReset(),
        ]
        self.fleet.down(name, cause=self._draw.choices(causes, [6, 2, 2])[0])

    def day(self, count: int, falls: int) -> None:
        """
        Tell the day: peers come in the first hour; of those that fall, most come back.
        """
        names = [f"{self._draw.choice(KINDS)}-{number:02}" for number in range(1, count + 1)]
        moments = [(self._draw.uniform(0, 3600), "up", name) for name in names]
        unreliable = self._draw.sample(names, max(3, count // 20))
        busy: dict[str, float] = {}
        for at in sorted(self._draw.uniform(4000, DAY - 900) for _ in range(falls)):
            name = self._draw.choice(unreliable)
            if at < busy.get(name, 0.0):
                continue
            back = at + self._draw.expovariate(1 / 900) + 20
            busy[name] = back + 60
            moments += [(at, "down", name), (back, "up", name)]
        for at, what, name in sorted(moments):
            if at < DAY - 60:
                self.wait(max(0.0, at - self._clock.seconds()))
                getattr(self, what)(name)
        self.wait(DAY - 47 - self._clock.seconds())
        for name in list(self.fleet.watched)[-1 - count // 1000 :]:
            self.fleet.suspect(name)
        self.down(next(iter(self.fleet.watched)))
        self.wait(3)

    def breathe(self) -> None:
        """
        Let round-trip times change, as they do.
        """
        for watched in self.fleet.watched.values():
            watched.rtt = max(0.001, watched.rtt * self._draw.lognormvariate(0, 0.12))
            watched.silence = self._draw.uniform(0, 15)


async def take(reactor: Any, into: Path) -> None:
    """
    Take all pictures.
    """
    into.mkdir(parents=True, exist_ok=True)
    browser = Browser()
    try:
        await _picturesOf(reactor, browser, into, "few", Story(4), (8, 30), FEW)
        await _picturesOf(reactor, browser, into, "many", Story(5), (10_000, 2500), MANY)
    finally:
        browser.quit()


async def _picturesOf(
    reactor: Any,
    browser: Browser,
    into: Path,
    name: str,
    story: Story,
    day: tuple[int, int],
    looks: list[tuple[str, bool, tuple[int, int], bool]],
) -> None:
    began = time.time()
    count, falls = day
    story.day(count, falls)
    resource = StatusResource(story.fleet.table, title="North plant", clock=reactor)
    port = reactor.listenTCP(0, Site(resource), interface="127.0.0.1")
    passing = LoopingCall(story.catchUp, began)
    passing.start(0.2)
    url = f"http://127.0.0.1:{port.getHost().port}/"
    # One that came back not long ago has something to show.
    shown = max(story.fleet.table.peers.values(), key=lambda peer: (peer.state == "up", peer.since))
    # A past that the page would have noted, had it been open.
    samples = resource._roundTrips
    for _ in range(55):
        story.breathe()
        samples.stop()
        samples.keepSampling()
        await deferLater(reactor, count / 20_000)
    await deferLater(reactor, 1)
    for look, dark, size, opened in looks:
        await browser.open(url, dark=dark, size=size, scale=1.5)
        if opened:
            show = "(location.hash = 'peer=' + encodeURIComponent(arguments[0]))"
            await browser.run(show, shown.name)
            await browser.until("document.querySelector('#roundtrips path') !== null")
        await browser.until("document.querySelector('#connection').dataset.state === 'live'")
        await deferLater(reactor, 0.5)
        await browser.picture(str(into / f"{name}-{look}.png"))
    resource.close()
    passing.stop()
    await port.stopListening()


def main() -> None:
    """
    Take the pictures.
    """
    parser = argparse.ArgumentParser(description="Take the pictures of the status page.")
    parser.add_argument("--into", type=Path, default=INTO, metavar="FOLDER")
    arguments = parser.parse_args()
    react(take, [arguments.into])


if __name__ == "__main__":
    main()
