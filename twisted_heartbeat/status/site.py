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
        # In the order in which they came.
        self._open: dict[Any, None] = {}

    def show(self, resource: StatusResource) -> None:
        """
        Serve another page from now on.  The streams of the old one end, and come back to the new.
        """
        self._status.close()
        self.resource = self._status = resource

    def buildProtocol(self, addr: Any) -> Any:
        """
        Accept a connection.  If there are too many, the oldest one that is not a stream is aborted;
        otherwise idle connections could shut out all new ones.
        """
        if len(self._open) >= _MAX_CONNECTIONS:
            self._makeRoom()
        protocol = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        made, lost = protocol.makeConnection, protocol.connectionLost
        transports: list[Any] = []

        def makeConnection(transport: Any) -> None:
            transports.append(transport)
            self._open[transport] = None
            made(transport)

        def connectionLost(reason: Any) -> None:
            for transport in transports:
                self._open.pop(transport, None)
            lost(reason)

        protocol.makeConnection, protocol.connectionLost = makeConnection, connectionLost
        return protocol

    def _makeRoom(self) -> None:
        streams = self._status.streams
        oldest = next((each for each in self._open if each not in streams), None)
        if oldest is not None:
            del self._open[oldest]
            oldest.abortConnection()

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
