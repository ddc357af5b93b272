# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Heartbeats over UDP in network namespaces: a NAT that rebinds, a roaming sender, a restarted
monitor, a monitor behind a slow loop, a network that is unreachable, IPv6 multicast.
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

from .cells import HEARTBEAT_EVERY, USUAL_BOUND
from .kernel import Kernel
from .network import HERE, THERE, Lane, Network

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

    @property
    def peer(self) -> str:
        """
        The address that the last heartbeat came from, and its port; nothing before the first one.
        """
        heard = [event["peer"] for event in list(self.events) if event["event"] == "heard"]
        return heard[-1] if heard else ""

    @property
    def port(self) -> int:
        """
        That port alone, or 0.
        """
        return int(self.peer.rpartition(":")[2] or 0)

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
def network(kernel: Kernel) -> Iterator[Network]:
    """
    Two namespaces.  The run that the other tests of this folder share goes on meanwhile.

    @param kernel: skips these tests, too, where there are no namespaces.
    """
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


def test_samePeerInABadNetwork(lane: Lane, start: Start) -> None:
    """
    Promises 7 and 21: a NAT that rebinds the sender's port, a loop of the monitor's that is blocked
    for longer than the bound, and another address of the sender's change nothing: it is the same
    peer.  When it is cut off, it is found dead at the bound, and later comes back.
    """
    watcher = start(HERE, "watch", lane.here, PORT, "-")
    _masquerade(lane, "20000-20999")
    sender = start(THERE, "send", lane.here, PORT, "yes")
    watcher.hears()
    assert 20000 <= watcher.port < 21000
    _masquerade(lane, "30000-30999")
    _forgetFlows(lane)
    watcher.until(lambda: watcher.port >= 30000)
    watcher.hears()

    watcher.block(1.2 * USUAL_BOUND)
    watcher.hears(2)

    lane.nft(THERE, f"delete table ip nat{lane.number}")
    lane.ip(THERE, "addr", "del", f"{lane.there}/24", "dev", lane.device)
    lane.ip(THERE, "addr", "add", f"{lane.elsewhere}/24", "dev", lane.device)
    watcher.until(lambda: watcher.peer.startswith(lane.elsewhere))
    assert watcher.turns.count("connected") == 1
    assert "disconnected" not in watcher.turns
    # The sender has found that the blocked monitor did not acknowledge, and that it does again.
    sender.until(lambda: sender.turns[-1] in ("connected", "recovered"))

    watcher.hears(2)
    lane.filter(HERE, "prerouting", f"udp dport {PORT} drop")
    watcher.until(lambda: "disconnected" in watcher.turns)
    verdict = next(event for event in watcher.events if event["event"] == "disconnected")
    assert verdict["cause"] == "PeerSilent"
    assert USUAL_BOUND <= verdict["silence"] <= USUAL_BOUND + 0.5 + verdict["runDelay"]
    lane.unfilter(HERE)
    watcher.until(lambda: watcher.turns[-1] == "connected")


def _masquerade(lane: Lane, ports: str) -> None:
    """
    Put a NAT before the sender.
    """
    table = f"table ip nat{lane.number}"
    lane.nft(
        THERE,
        f"add {table}",
        f"delete {table}",
        f"add {table}",
        f"add chain ip nat{lane.number} out "
        "{ type nat hook postrouting priority srcnat; policy accept; }",
        f"add rule ip nat{lane.number} out "
        f"oifname {lane.device} udp dport {PORT} masquerade to :{ports}",
    )


def _forgetFlows(lane: Lane) -> None:
    """
    Forget all flows of the sender's namespace, by taking its interface down and up again:
    masquerading forgets the flows of an interface that goes down.  Source: C{nf_nat_masquerade.c}.
    """
    lane.ip(THERE, "link", "set", lane.device, "down")
    lane.ip(THERE, "link", "set", lane.device, "up")


def test_monitorComesAndGoes(lane: Lane, start: Start) -> None:
    """
    A sender that starts without a route (ENETUNREACH) sends as soon as there is one.  A monitor
    that is killed, whose host answers with ICMP errors, hears it again when it has started.
    """
    watcher = start(HERE, "watch", lane.here, PORT, "-")
    lane.ip(THERE, "link", "set", lane.device, "down")
    sender = start(THERE, "send", lane.here, PORT, "yes")
    time.sleep(3 * HEARTBEAT_EVERY)
    lane.ip(THERE, "link", "set", lane.device, "up")
    watcher.hears(2)
    sender.until(lambda: sender.turns == ["connected"])
    watcher.kill()
    time.sleep(2 * HEARTBEAT_EVERY)
    after = start(HERE, "watch", lane.here, PORT, "-")
    after.hears(2)
    assert after.turns == ["connected"]
    sender.until(lambda: sender.turns[-1] in ("connected", "recovered"))


def test_multicastIPv6(lane: Lane, start: Start) -> None:
    """
    A monitor of an IPv6 group challenges the sender by unicast, over its link-local address.
    """
    group = f"ff02::8471%{lane.device}"
    watcher = start(HERE, "watch", "::", PORT, group)
    start(THERE, "send", group, PORT, "no")
    watcher.hears()
    assert watcher.turns == ["connected"]
    assert watcher.peer.startswith("fe80::")
