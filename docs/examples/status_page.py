# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A hub with a status page: C{python status_page.py}, and then http://localhost:8080/.
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.web.server import Site

from twisted_heartbeat import (
    HeartbeatMetrics,
    HeartbeatServerFactory,
    PresenceTable,
    StatusResource,
)

log = Logger()


async def main(reactor, hub="tcp:8470", page="tcp:8080:interface=127.0.0.1"):
    """
    Serve until the process ends.
    """
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    presence = PresenceTable()
    presence.startService()
    # The end of this process is no fall of the peers.
    reactor.addSystemEventTrigger("before", "shutdown", presence.stopService)
    metrics = HeartbeatMetrics()
    factory = HeartbeatServerFactory(hooks=[presence, metrics], name="hub")
    await serverFromString(reactor, hub).listen(factory)
    status = Site(StatusResource(presence, metrics=metrics, title="North plant"))
    port = await serverFromString(reactor, page).listen(status)
    address = port.getHost()
    log.info("The status page is at http://{host}:{port}/", host=address.host, port=address.port)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
