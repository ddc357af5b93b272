# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Heartbeats over UDP in network namespaces: a NAT that rebinds, a roaming sender, a restarted monitor,
a monitor behind a slow loop, a network that is unreachable, IPv6 multicast.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .datagrams import BOUND, EVERY
from .network import HERE, THERE, Lane, Network, whyNot

SCRIPT = Path(__file__).with_name("datagrams.py")
ROOT = Path(__file__).parents[3]
PORT = "8471"
WAIT_LIMIT = 20.0


class Process:
    """
    A sender or a monitor in a namespace.

    @ivar events: what it has said.
    """

    def __init__(self, network: Network, end: str, *arguments: str) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = ["ip", "netns", "exec", network.names[end], sys.executable, str(SCRIPT)]
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.until(lambda: self.names)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.append(json.loads(line))

    @property
    def names(self) -> list[str]:
        """
        What it has said, without how.
        """
        return [event["event"] for event in list(self.events)]

    @property
    def turns(self) -> list[str]:
        """
        What became of its peer.
        """
        return [name for name in self.names if name not in ("started", "heard")]

    def until(self, holds: Callable[[], object]) -> None:
        """
        Wait until it holds.
        """
        deadline = time.monotonic() + WAIT_LIMIT
        while not holds():
            assert time.monotonic() < deadline, self.events[-20:]
            time.sleep(0.01)

    def hears(self, count: int = 4) -> None:
        """
        Wait until it has heard so many more heartbeats.
        """
        before = self.names.count("heard")
        self.until(lambda: self.names.count("heard") >= before + count)

    def block(self, seconds: float) -> None:
        """
        Block its loop.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """
        SIGKILL.
        """
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass


Start = Callable[..., Process]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """
    Two namespaces.
    """
    reason = whyNot()
    if reason is not None:
        pytest.skip(reason)
    made = Network()
    yield made
    made.remove()


@pytest.fixture
def lane(network: Network) -> Lane:
    """
    A cable of the test's own.
    """
    return network.addLanes(1)[0]


@pytest.fixture
def start(network: Network) -> Iterator[Start]:
    """
    Starts processes, and kills them.
    """
    started: list[Process] = []

    def run(end: str, *arguments: str) -> Process:
        started.append(Process(network, end, *arguments))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def test_natRebinds(lane: Lane, start: Start) -> None:
    """
    Promise 21: a NAT that forgets its flows gives the sender another port; the peer stays alive, and
    the acknowledgements find their way.
    """
    watcher = start(HERE, "watch", lane.here, PORT, "-")
    table = f"table ip nat{lane.number}"
    chain = "{ type nat hook postrouting priority srcnat; policy accept; }"

    def masquerade(ports: str) -> None:
        lane.nft(
            THERE,
            f"add {table}",
            f"delete {table}",
            f"add {table}",
            f"add chain ip nat{lane.number} out {chain}",
            f"add rule ip nat{lane.number} out ip daddr {lane.here} udp dport {PORT} "
            f"masquerade to {ports}",
        )

    masquerade(":20000-20999")
    sender = start(THERE, "send", lane.here, PORT, "yes")
    watcher.hears()
    assert 20000 <= int(watcher.events[-1]["peer"].rpartition(":")[2]) < 21000
    masquerade(":30000-30999")
    _forgetFlows(lane)
    watcher.until(lambda: int(watcher.events[-1].get("peer", ":0").rpartition(":")[2]) >= 30000)
    watcher.hears()
    assert watcher.turns == sender.turns == ["connected"]


def _forgetFlows(lane: Lane) -> None:
    """
    Forget all flows of the sender's namespace, by taking its interface down and up again:
    masquerading forgets the flows of an interface that goes down.  Source: C{nf_nat_masquerade.c}.
    """
    lane.ip(THERE, "link", "set", lane.device, "down")
    lane.ip(THERE, "link", "set", lane.device, "up")


def test_roaming(lane: Lane, start: Start) -> None:
    """
    Promise 21: a sender whose address changes, and that has no network for a moment, stays the same
    peer.
    """
    watcher = start(HERE, "watch", lane.here, PORT, "-")
    sender = start(THERE, "send", lane.here, PORT, "yes")
    watcher.hears()
    lane.ip(THERE, "addr", "del", f"{lane.there}/24", "dev", lane.device)
    time.sleep(2 * EVERY)
    lane.ip(THERE, "addr", "add", f"{lane.elsewhere}/24", "dev", lane.device)
    watcher.until(lambda: watcher.events[-1].get("peer", "").startswith(lane.elsewhere))
    watcher.hears()
    assert [turn for turn in watcher.turns if turn not in ("suspected", "recovered")] == [
        "connected"]  # fmt: skip
    assert "disconnected" not in sender.turns


def test_restartedMonitor(lane: Lane, start: Start) -> None:
    """
    A monitor that is killed and started again hears the sender within two heartbeats.  While it is
    gone, its host answers with ICMP errors, which end nothing.
    """
    watcher = start(HERE, "watch", lane.here, PORT, "-")
    sender = start(THERE, "send", lane.here, PORT, "yes")
    watcher.hears()
    watcher.kill()
    time.sleep(2 * EVERY)
    after = start(HERE, "watch", lane.here, PORT, "-")
    after.hears(2)
    assert after.events[1]["at"] - after.events[0]["at"] <= 2 * EVERY + 0.5
    assert "disconnected" not in sender.turns


def test_slowLoop(lane: Lane, start: Start) -> None:
    """
    Promise 7: a monitor whose loop blocks for longer than the bound, again and again, takes no
    living sender for dead; one that is cut off it finds within the bound all the same.
    """
    watcher = start(HERE, "watch", lane.here, PORT, "-")
    start(THERE, "send", lane.here, PORT, "yes")
    watcher.hears()
    for _ in range(2):
        watcher.block(1.2 * BOUND)
        watcher.hears(2)
    assert "disconnected" not in watcher.turns
    lane.filter(HERE, "prerouting", f"udp dport {PORT} drop")
    cut = time.monotonic()
    watcher.until(lambda: "disconnected" in watcher.turns)
    assert watcher.events[-1]["cause"] == "PeerSilent"
    last = [event["at"] for event in watcher.events if event["event"] == "heard"][-1]
    assert BOUND <= watcher.events[-1]["at"] - last <= BOUND + 0.3
    assert watcher.events[-1]["at"] - cut <= BOUND + 0.3
    lane.unfilter(HERE)
    watcher.until(lambda: watcher.turns[-1] == "connected")


def test_unreachable(lane: Lane, start: Start) -> None:
    """
    A sender without a route (ENETUNREACH) sends as soon as there is one.
    """
    watcher = start(HERE, "watch", lane.here, PORT, "-")
    lane.ip(THERE, "link", "set", lane.device, "down")
    sender = start(THERE, "send", lane.here, PORT, "yes")
    time.sleep(3 * EVERY)
    lane.ip(THERE, "link", "set", lane.device, "up")
    watcher.hears(2)
    sender.until(lambda: sender.turns == ["connected"])


def test_multicastIPv6(lane: Lane, start: Start) -> None:
    """
    A monitor of an IPv6 group challenges the sender by unicast, over its link-local address.
    """
    group = f"ff02::8471%{lane.device}"
    watcher = start(HERE, "watch", "::", PORT, group)
    start(THERE, "send", group, PORT, "no")
    watcher.hears()
    assert watcher.turns == ["connected"]
    assert watcher.events[-1]["peer"].startswith("fe80::")
