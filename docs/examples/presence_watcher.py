# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Know who is alive, and remember it. Run with: python presence_watcher.py presence.db 8470
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_heartbeat import (
    Heartbeat,
    HeartbeatServerFactory,
    PresenceHooks,
    PresenceTable,
    SQLiteStore,
)


class Printer(PresenceHooks):
    """Print what changes; here a program of yours would send mail."""

    def changed(self, change):
        print(f"{change.name} was {change.previous} and is {change.state}. {change.reason}".strip())

    def missed(self, gap, peers):
        print(f"changes {gap.first} to {gap.last} are not kept any more; now:")
        for peer in peers:
            print(f"{peer.name} is {peer.state}")


async def main(reactor, path, port):
    """Watch whoever connects, until the process is told to end."""
    table = PresenceTable(store=SQLiteStore(path), grace=2.0)
    table.subscribe("printer", Printer())
    table.startService()
    # The end of this process is no fall of the peers.
    reactor.addSystemEventTrigger("before", "shutdown", table.stopService)
    await table.whenLoaded()

    server = HeartbeatServerFactory(heartbeat=Heartbeat.within(3), hooks=table, name="sensors")
    listening = reactor.listenTCP(int(port), server, interface="127.0.0.1")
    print("listening on port", listening.getHost().port)
    for name, peer in table.peers.items():
        print(f"{name} is {peer.state}")
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
