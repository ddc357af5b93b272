# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{StatusSite}: a web server for the status page alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.web.server import Site

if TYPE_CHECKING:
    from twisted.web.http import Request

    from .resource import StatusResource


class StatusSite(Site):
    """
    Serves the status page.  It writes no access log, because the log of this program tells what
    happens to peers.
    """

    noisy = False
    displayTracebacks = False

    def __init__(self, resource: StatusResource, reactor: Any) -> None:
        super().__init__(resource, reactor=reactor)  # type: ignore[no-untyped-call]
        self._status = resource

    def log(self, request: Request) -> None:
        """
        Log nothing.
        """

    def drain(self) -> Deferred[None]:
        """
        End all streams.
        """
        self._status.close()
        return succeed(None)
