# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A gateway that checks in while its link to a hub is up: C{python gateway.py URL ENDPOINT}.
"""

import sys

from twisted.internet import defer, endpoints, protocol, task

from twisted_heartbeat import CheckIn, Heartbeat, HeartbeatClientService, HeartbeatProtocol


def main(reactor, url, hub):
    """
    Keep the link up until the process ends.
    """
    checkIn = CheckIn(url, interval=1.0, body=lambda: {"state": link.state}, reactor=reactor)
    link = HeartbeatClientService(
        endpoints.clientFromString(reactor, hub),
        protocol.Factory.forProtocol(HeartbeatProtocol),
        heartbeat=Heartbeat.within(8),
        hooks=checkIn.linkHooks(),
    )
    link.startService()
    checkIn.startService()
    return defer.Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
