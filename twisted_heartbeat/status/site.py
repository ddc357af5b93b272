# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{StatusSite}: a web server for the status page alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.web.server import Request, Site

if TYPE_CHECKING:
    from .resource import StatusResource

_MAX_CONNECTIONS = 1000


class _BodilessRequest(Request):
    """
    A request whose body is thrown away: nothing here takes one, and it could be of any size.
    """

    def handleContentChunk(self, data: bytes) -> None:
        pass


class StatusSite(Site):
    """
    Serves the status page.  It writes no access log, because the log of this program tells what
    happens to peers.
    """

    noisy = False
    displayTracebacks = False

    def __init__(self, resource: StatusResource, reactor: Any) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, requestFactory=_BodilessRequest, reactor=reactor
        )
        self._status = resource
        self._open = 0

    def show(self, resource: StatusResource) -> None:
        """
        Serve another page from now on.  The streams of the old one end, and come back to the new.
        """
        self._status.close()
        self.resource = self._status = resource

    def buildProtocol(self, addr: Any) -> Any:
        """
        Accept a connection, unless there are too many.
        """
        if self._open >= _MAX_CONNECTIONS:
            return None
        self._open += 1
        protocol = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        lost = protocol.connectionLost

        def connectionLost(reason: Any) -> None:
            self._open -= 1
            lost(reason)

        protocol.connectionLost = connectionLost
        return protocol

    def log(self, request: Any) -> None:
        """
        Log nothing.
        """

    def drain(self) -> Deferred[None]:
        """
        End all streams.
        """
        self._status.close()
        return succeed(None)
