# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What C{twist} and C{twistd}, C{clientFromString} and C{serverFromString} find of this package.

Everybody's C{twist} imports this file, before it installs a reactor: nothing here may import the
reactor, nor anything that can fail to import. L{ServiceMaker} imports the module it names when
C{heartbeat} is asked for, not before; so does a L{Prefix} when a string that begins with it is
parsed.
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
    Parses the strings of endpoints that begin with a prefix of this package's.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    # An argument of the endpoint's may have any name.
    def parseStreamClient(self, reactor: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        See C{IStreamClientEndpointStringParserWithReactor}.
        """
        from twisted_heartbeat.endpoints.build import clientFor

        return clientFor(self.prefix, reactor, args, kwargs)

    def parseStreamServer(self, reactor: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        See C{IStreamServerEndpointStringParser}.
        """
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
