# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""The README's client with the service. Its server is: twist heartbeat --listen tcp:8470"""

import sys

from twisted.internet import endpoints, protocol, reactor
from twisted.python.log import startLogging

from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatProtocol

startLogging(sys.stdout)
hub = endpoints.clientFromString(reactor, "tcp:127.0.0.1:8470")
factory = protocol.Factory.forProtocol(HeartbeatProtocol)
HeartbeatClientService(hub, factory, heartbeat=Heartbeat.within(8)).startService()
reactor.run()
