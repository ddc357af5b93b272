# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
C{heartbeat:}, on both ends, carries whatever runs over it in a L{Tunnel}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from twisted.internet.defer import Deferred, fail

from ..core.causes import ConnectFailed
from ..core.settings import Heartbeat, Limits
from ..protocol.wrapper import HeartbeatFactory
from ..transport.layers import abort
from .prefix import Prefix, _numbers
from .tunnel import EndpointHistory, Tunnel, TunnelFactory

# heartbeat:

HEARTBEAT = Prefix("heartbeat", ("within", "closeTimeout"), "heartbeat:tcp:hub:7000:within=8")


class _TunnelLinks(HeartbeatFactory):
    """
    Watches the tunnels of one factory.  Its links count on from those of others of one endpoint.
    """

    def __init__(self, tunnels: TunnelFactory, generations: Iterator[int], **settings: Any) -> None:
        super().__init__(cast(Any, tunnels), **settings)
        self._settings["generations"] = generations
        self._tunnels = tunnels

    def opened(self, connected: Any) -> Deferred[Any]:
        """
        @param connected: what the endpoint has connected: a tunnel, or a protocol that carries one,
            as one that speaks WebSocket.
        @return: fires with the carried protocol.
        """
        tunnel = connected if isinstance(connected, Tunnel) else self._tunnels.latest
        if tunnel is None:
            abort(connected.transport)
            words = f"the endpoint connected {connected!r}, and asked for no protocol to carry"
            return fail(ConnectFailed(words))
        return tunnel.whenOpen()


@dataclass(frozen=True)
class _TunnelMaker:
    """
    Makes the factories of tunnels that are alike.
    """

    heartbeat: Heartbeat
    closeTimeout: float | None
    reactor: Any
    words: str
    generations: Iterator[int] = field(default_factory=lambda: count(1))
    history: EndpointHistory = field(default_factory=EndpointHistory)

    def wrap(self, factory: Any) -> _TunnelLinks:
        # No sendStall: a peer that takes nothing and speaks is slow, and one that does not speak
        # is found by its silence.
        return _TunnelLinks(
            TunnelFactory(factory, self.reactor, self.history),
            self.generations,
            heartbeat=self.heartbeat,
            limits=Limits(closeTimeout=self.closeTimeout, sendStall=None),
            clock=self.reactor,
            name=self.words,
        )


def _heartbeat(own: Mapping[str, str], reactor: Any, words: str) -> Callable[[Any], Any]:
    numbers = _numbers(own)
    heartbeat = Heartbeat.within(numbers["within"]) if "within" in numbers else Heartbeat()
    closeTimeout = numbers.get("closeTimeout", Limits().closeTimeout)
    # It says what is wrong with it.
    Limits(closeTimeout=closeTimeout)
    return _TunnelMaker(heartbeat, closeTimeout, reactor, words).wrap
