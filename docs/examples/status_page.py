# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A hub with a status page: C{python status_page.py}, and then http://localhost:8080/.
"""

import sys

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet import defer, task
from twisted.internet.endpoints import serverFromString
from twisted.web.server import Site

from twisted_heartbeat import (
    HeartbeatMetrics,
    HeartbeatServerFactory,
    PresenceTable,
    StatusResource,
)


def serve(reactor, hub, page):
    """
    Make the services of the hub and of its page.
    """
    services = MultiService()
    presence = PresenceTable()
    presence.setServiceParent(services)
    metrics = HeartbeatMetrics()
    factory = HeartbeatServerFactory(hooks=[presence, metrics], name="hub")
    status = Site(StatusResource(presence, metrics=metrics, title="North plant"))
    for description, served in ((hub, factory), (page, status)):
        endpoint = serverFromString(reactor, description)
        StreamServerEndpointService(endpoint, served).setServiceParent(services)
    return services


def main(reactor, hub="tcp:8470", page="tcp:8080:interface=127.0.0.1"):
    """
    Serve until the process ends.
    """
    services = serve(reactor, hub, page)
    services.startService()
    reactor.addSystemEventTrigger("before", "shutdown", services.stopService)
    return defer.Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
