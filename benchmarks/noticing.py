# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How long it takes to notice that a peer is gone: Twisted alone, the system's keepalive, autobahn,
websockets and this package, fault by fault.

Clients and peers run in two network namespaces with a cable for each fault, so that packets can be
dropped and the kernels do what they do on a real line.  All faults are done at once.  Every client
has several connections in different phases of its pings.  What is told is the time from the fault
until the client's program was told of the end.  Whatever has not been noticed when the run ends
counts as the length of the run.

It needs Linux, root, iproute2 and nftables.  Run it with
C{python benchmarks/noticing.py [--seconds N] [--json FILE]}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

HERE = Path(__file__).resolve().parent
# The namespaces are those of the tests of the kernel's faults.
sys.path.insert(0, str(HERE.parent / "tests" / "system" / "kernel"))

import network  # noqa: E402
from noticingends import BOUND, CLIENTS, CONNECTIONS, INTERVAL, KEEPALIVE, TIMEOUT  # noqa: E402
from report import Comparison, parserFor, report  # noqa: E402


class End:
    """
    A process in a namespace, and the facts that it has printed.
    """

    def __init__(self, namespace: str, *words: str) -> None:
        script = str(HERE / "noticingends.py")
        command = ["ip", "netns", "exec", namespace, sys.executable, script, *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._facts: list[dict[str, object]] = []

    def first(self) -> dict[str, object]:
        """
        Wait for the first fact.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process did not start")
        return dict(json.loads(line))

    def send(self, number: signal.Signals) -> None:
        """
        Send a signal.
        """
        self._process.send_signal(number)

    def finish(self) -> list[dict[str, object]]:
        """
        Kill it.

        @return: the facts that it has printed since the first.
        """
        if not self._facts and self._process.returncode is None:
            self._process.kill()
            output, _ = self._process.communicate()
            self._facts = [json.loads(line) for line in output.splitlines() if line.endswith("}")]
        return self._facts


Fault = Callable[[network.Lane, End], None]


def cut(lane: network.Lane, peer: End) -> None:
    """
    Drop all packets, both ways.
    """
    for end in (network.HERE, network.THERE):
        lane.filter(end, "prerouting", f"iifname {lane.device} drop")


def freeze(lane: network.Lane, peer: End) -> None:
    """
    Stop the peer's process.  Its kernel goes on.
    """
    peer.send(signal.SIGSTOP)


def kill(lane: network.Lane, peer: End) -> None:
    """
    Kill the peer's process.  Its kernel closes its connections.
    """
    peer.send(signal.SIGKILL)


FAULTS: dict[str, tuple[Fault, str]] = {
    "cable cut, idle": (cut, "idle"),
    "cable cut while sending": (cut, "data"),
    "peer's process hangs": (freeze, "idle"),
    "peer's process killed": (kill, "idle"),
}
"""What is done, and what the clients do meanwhile."""


@dataclass
class Scene:
    """
    One fault: its cable, its peer and a client of each kind.
    """

    fault: str
    lane: network.Lane
    peer: End
    clients: dict[str, End]


def stage(net: network.Network, fault: str, lane: network.Lane) -> Scene:
    """
    Start the processes of a fault.
    """
    peer = End(net.names[network.THERE], "peer")
    ports = json.dumps(peer.first()["ports"])
    load = FAULTS[fault][1]
    namespace = net.names[network.HERE]
    clients = {name: End(namespace, name, lane.there, ports, load) for name in CLIENTS}
    return Scene(fault, lane, peer, clients)


def measure(seconds: float) -> list[Comparison]:
    """
    Do all faults.

    @param seconds: how long to wait afterwards.
    """
    reason = network.whyNot()
    if reason is not None:
        raise SystemExit(reason)
    net = network.Network()
    try:
        lanes = net.addLanes(len(FAULTS))
        scenes = [stage(net, fault, lane) for fault, lane in zip(FAULTS, lanes, strict=True)]
        for scene in scenes:
            for client in scene.clients.values():
                client.first()
        began: dict[str, float] = {}
        # A moment in which no client pings by plan.
        sleep(INTERVAL + 1.3)
        for scene in scenes:
            began[scene.fault] = monotonic()
            FAULTS[scene.fault][0](scene.lane, scene.peer)
        sleep(seconds)
        return [figures(scene, began[scene.fault], seconds) for scene in scenes]
    finally:
        for name in net.names.values():
            for pid in network.run("ip", "netns", "pids", name).split():
                os.kill(int(pid), signal.SIGKILL)
        net.remove()


def figures(scene: Scene, began: float, seconds: float) -> Comparison:
    """
    What came of a fault.
    """
    found = Comparison(scene.fault, "s")
    for name, client in scene.clients.items():
        after = [float(str(fact["at"])) - began for fact in client.finish() if "lost" in fact]
        noticed = sorted(each for each in after if each >= 0)[:CONNECTIONS]
        for each in noticed + [seconds] * (CONNECTIONS - len(noticed)):
            found.add(name, each)
    return found


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, seconds=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to wait")
    options = parser.parse_args()
    found = measure(options.seconds)
    report(
        "noticing",
        found,
        options.json,
        longest={
            fault.title: {name: round(max(values), 2) for name, values in fault.samples.items()}
            for fault in found
        },
        seconds=options.seconds,
        bound=BOUND,
        interval=INTERVAL,
        timeout=TIMEOUT,
        keepalive=KEEPALIVE,
    )


if __name__ == "__main__":
    main()
