# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Watch sensors that send datagrams: C{python monitor.py 8471}.
"""

import sys

from twisted.internet import defer, task

from twisted_heartbeat import DatagramHooks, UDPHeartbeatMonitor

# Of this page. Make keys of your own, see below.
KEYS = {"pump": bytes.fromhex("00112233445566778899aabbccddeeff")}


class Sensors(DatagramHooks):
    """
    Prints what the sensors do.
    """

    def connected(self, peer):
        print(peer.name, "lives, at", peer.peer, flush=True)

    def readingReceived(self, peer, reading):
        print(peer.name, reading, flush=True)

    def disconnected(self, peer, cause):
        print(peer.name, "is gone:", cause, flush=True)


def main(reactor, port):
    """
    Watch until the process ends.
    """
    monitor = UDPHeartbeatMonitor(KEYS, port=int(port), hooks=Sensors(), reactor=reactor)
    monitor.startService()
    reactor.addSystemEventTrigger("before", "shutdown", monitor.stopService)
    print("ready", flush=True)
    return defer.Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
