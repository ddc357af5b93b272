# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The C{heartbeat:} prefix: on both ends, it carries another protocol in a L{Tunnel}.
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
from .prefix import Prefix, numbersOf
from .tunnel import EndpointHistory, Tunnel, TunnelFactory

HEARTBEAT = Prefix("heartbeat", ("within", "closeTimeout"), "heartbeat:tcp:hub:7000:within=8")


class TunnelLinks(HeartbeatFactory):
    """
    Watches the tunnels of one factory.  All factories of one endpoint number their links together.
    """

    def __init__(self, tunnels: TunnelFactory, generations: Iterator[int], **settings: Any) -> None:
        super().__init__(cast(Any, tunnels), **settings)
        self._settings["generations"] = generations
        self._tunnels = tunnels

    def opened(self, connected: Any) -> Deferred[Any]:
        """
        Wait for the tunnel to open.

        @param connected: the protocol that the endpoint has connected: a tunnel, or a protocol that
            carries one, such as WebSocket's.
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
    Makes the tunnel factories of one endpoint.
    """

    heartbeat: Heartbeat
    limits: Limits
    reactor: Any
    words: str
    generations: Iterator[int] = field(default_factory=lambda: count(1))
    history: EndpointHistory = field(default_factory=EndpointHistory)

    def wrap(self, factory: Any) -> TunnelLinks:
        return TunnelLinks(
            TunnelFactory(factory, self.reactor, self.history),
            self.generations,
            heartbeat=self.heartbeat,
            limits=self.limits,
            clock=self.reactor,
            name=self.words,
        )


def heartbeatWrapper(own: Mapping[str, str], reactor: Any, words: str) -> Callable[[Any], Any]:
    """
    Return the wrapper of the factories behind C{heartbeat:}.

    @param own: the arguments of the prefix, as text.
    @param words: the whole string, for the log.
    @raise ValueError: if an argument is not allowed.
    """
    numbers = numbersOf(own)
    heartbeat = Heartbeat.within(numbers.pop("within")) if "within" in numbers else Heartbeat()
    # No sendStall: a peer that takes nothing but speaks is slow, and a dead one is found by its
    # silence.
    limits = Limits(sendStall=None, **numbers)
    return _TunnelMaker(heartbeat, limits, reactor, words).wrap
