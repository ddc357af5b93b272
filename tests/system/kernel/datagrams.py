# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A process of the kernel suite that sends datagrams, or watches for them: it prints what its hooks
are told, one JSON object a line.

  python datagrams.py watch INTERFACE PORT GROUP|-
  python datagrams.py send HOST PORT WATCH

A watcher is told through stdin to block its loop: a number of seconds, one a line.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from cells import HEARTBEAT_EVERY, USUAL_BOUND
from rundelay import RunDelay
from twisted.internet import reactor, stdio
from twisted.protocols.basic import LineOnlyReceiver

from twisted_heartbeat import (
    DatagramHooks,
    Heartbeat,
    UDPHeartbeatMonitor,
    UDPHeartbeatSender,
)

NAME, KEY = "pump", bytes(range(32))
DELAY = RunDelay()


def say(event: str, **fields: Any) -> None:
    """
    Print a line.
    """
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


class Hooks(DatagramHooks):
    """
    Says what is told.
    """

    def connected(self, peer: Any) -> None:
        say("connected", peer=f"{peer.peer.host}:{peer.peer.port}")

    def suspected(self, peer: Any) -> None:
        say("suspected")

    def recovered(self, peer: Any) -> None:
        say("recovered")

    def disconnected(self, peer: Any, cause: Exception) -> None:
        now = time.monotonic()
        say(
            "disconnected",
            cause=type(cause).__name__,
            silence=peer.silence,
            runDelay=DELAY.worst(now - peer.silence, now),
        )

    def readingReceived(self, peer: Any, reading: bytes) -> None:
        say("heard", peer=f"{peer.peer.host}:{peer.peer.port}", lost=peer.lost)


class Orders(LineOnlyReceiver):
    """
    Blocks the loop for so many seconds.
    """

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        time.sleep(float(line))

    def connectionLost(self, reason: Any = None) -> None:
        """
        The test is over.
        """
        reactor.stop()


def main() -> None:
    """
    The command.
    """
    service: Any
    if sys.argv[1] == "watch":
        interface, port, group = sys.argv[2:]
        groups = [] if group == "-" else [group]
        service = UDPHeartbeatMonitor(
            {NAME: KEY}, hooks=Hooks(), port=int(port), interface=interface, groups=groups
        )
    else:
        host, port, watch = sys.argv[2:]
        service = UDPHeartbeatSender(
            (host, int(port)),
            name=NAME,
            key=KEY,
            heartbeat=Heartbeat.within(USUAL_BOUND),
            every=HEARTBEAT_EVERY,
            watch=watch == "yes",
            reading=lambda: b"1",
            hooks=Hooks(),
        )
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    stdio.StandardIO(Orders())
    say("started")
    reactor.run()


if __name__ == "__main__":
    main()
