# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The gateway as a daemon: HUB=tls:hub.example:7000 twistd -ny gateway.tac
"""

import os
import sys
from pathlib import Path

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString

sys.path.insert(0, str(Path(__file__).parent))

from gateway import Gateway  # noqa: E402

application = Application("gateway")
gateway = Gateway(
    serverFromString(reactor, os.environ.get("LISTEN", "tcp:7001")),
    clientFromString(reactor, os.environ.get("HUB", "tcp:127.0.0.1:7000")),
)
gateway.setServiceParent(application)
