# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A sensor that sends its readings in heartbeats: C{python sender.py localhost 8471}.
"""

import sys

from twisted.internet import defer, task

from twisted_heartbeat import Heartbeat, UDPHeartbeatSender


def main(reactor, host, port):
    """
    Send until the process ends, and say goodbye then.
    """
    sender = UDPHeartbeatSender(
        (host, int(port)),
        name="pump",
        key=bytes.fromhex("00112233445566778899aabbccddeeff"),
        heartbeat=Heartbeat.within(20),
        reading=lambda: b"21.5",
        reactor=reactor,
    )
    sender.startService()
    reactor.addSystemEventTrigger("before", "shutdown", sender.stopService)
    return defer.Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
