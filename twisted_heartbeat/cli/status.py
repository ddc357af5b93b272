# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The status page of C{twist heartbeat}.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..files import readFile

if TYPE_CHECKING:
    from ..presence.table import PresenceTable
    from ..status.metrics import HeartbeatMetrics
    from ..status.resource import StatusResource
    from ..status.site import StatusSite

_MAX_TOKEN = 4096
"""Bytes that a file with a token may have."""

_OPEN_TO_ALL = re.compile(r"^(?:[a-z]+:)*?(tcp|tcp6|ssl):(?!.*\binterface=)", re.DOTALL)
"""A description that would listen on all interfaces of the machine."""


def onLoopback(description: str) -> str:
    """
    Return the description of an endpoint, on loopback unless it names an interface itself.

    @param description: as for C{serverFromString}, or only the number of a TCP port.
    """
    if description.isascii() and description.isdigit():
        description = f"tcp:{description}"
    found = _OPEN_TO_ALL.match(description)
    if found is None:
        return description
    address = r"\:\:1" if found[1] == "tcp6" else "127.0.0.1"
    return f"{description}:interface={address}"


def readToken(path: str) -> str:
    """
    Read a token from a file, without the white space around it.

    @raise OSError: if the file cannot be read.
    @raise ValueError: if it is no text, or too long.
    """
    return readFile(path, _MAX_TOKEN).decode("utf-8-sig").strip()


def makeMetrics() -> HeartbeatMetrics | None:
    """
    Return the metrics; L{None} if the extra C{metrics} is not installed.
    """
    if find_spec("prometheus_client") is None:
        return None
    from ..status.metrics import HeartbeatMetrics

    return HeartbeatMetrics()


def makeStatusResource(
    presence: PresenceTable,
    reactor: Any,
    *,
    metrics: HeartbeatMetrics | None = None,
    token: str | None = None,
    title: str = "Heartbeat",
) -> StatusResource:
    """
    Make the page that shows a presence table.
    """
    # Not at the top: most runs have no page, and need no web server.
    from ..status.resource import StatusResource

    return StatusResource(presence, token=token, metrics=metrics, title=title, clock=reactor)


def makeStatusSite(presence: PresenceTable, reactor: Any, **settings: Any) -> StatusSite:
    """
    Make the site of that page.

    @param settings: as for L{makeStatusResource}.
    """
    from ..status.site import StatusSite

    return StatusSite(makeStatusResource(presence, reactor, **settings), reactor)
