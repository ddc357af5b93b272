# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A server that watches its devices: C{python server.py 7000}.
"""

import sys

from twisted.internet import defer, protocol, task

from twisted_heartbeat import (
    Heartbeat,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    LinkHooks,
    ServerLimits,
)

KNOWN = {"pump-3", "lamp-1"}


class Device(HeartbeatProtocol):
    """
    Prints what its device says.
    """

    def messageReceived(self, message):
        print(self.hello.name, "says", message, flush=True)


class Attendance(LinkHooks):
    """
    Prints who is here.
    """

    def connected(self, link):
        print(link.name, "is here", flush=True)
        link.addCleanup(print, link.name, "is gone", flush=True)

    def refused(self, link, cause):
        print(link.peer.host, "was", cause, flush=True)


def admit(address, certificate, hello):
    """
    Refuse devices that nobody has heard of.
    """
    if hello.name not in KNOWN:
        return "unknown device"
    return None


def main(reactor, port):
    """
    Serve until the process ends.
    """
    server = HeartbeatServerFactory(
        protocol.Factory.forProtocol(Device),
        heartbeat=Heartbeat.within(35),
        hooks=Attendance(),
        admit=admit,
        serverLimits=ServerLimits(peers=5000),
    )
    reactor.listenTCP(int(port), server)
    reactor.addSystemEventTrigger("before", "shutdown", server.drain)
    print("ready", flush=True)
    return defer.Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
