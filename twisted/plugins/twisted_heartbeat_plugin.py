# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The plugins of this package, for C{twist}, C{twistd}, C{clientFromString} and C{serverFromString}.

Every C{twist} imports this file before it installs a reactor, also for other services.  Therefore
nothing here may import the reactor, or anything that can fail to import.  L{ServiceMaker} imports
its module only when C{heartbeat} is asked for, and a L{Prefix} when it parses a string.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(
    IPlugin, IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser
)
class Prefix:
    """
    Parses endpoint strings that begin with a prefix of this package.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    # Positional-only, because an argument of the endpoint may have any name.
    def parseStreamClient(self, reactor: Any, /, *args: Any, **kwargs: Any) -> Any:
        from twisted_heartbeat.endpoints.build import clientFor

        return clientFor(self.prefix, reactor, args, kwargs)

    def parseStreamServer(self, reactor: Any, /, *args: Any, **kwargs: Any) -> Any:
        from twisted_heartbeat.endpoints.build import serverFor

        return serverFor(self.prefix, reactor, args, kwargs)


heartbeat = ServiceMaker(
    "twisted_heartbeat: links proven alive within a bound, or replaced",
    "twisted_heartbeat.tap",
    "Watch links, or keep them up: each is proven alive within the bound, or replaced.",
    "heartbeat",
)
keepAlivePrefix = Prefix("keepalive")
heartbeatPrefix = Prefix("heartbeat")
