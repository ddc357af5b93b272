# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What this side says of itself in the built-in protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import inf
from typing import Any

from ..core import wire
from ..core.settings import MIN_BOUND

_SOON_ENOUGH = 0.75
"""Of the time within which this side has to say something, for the network takes some as well."""


@lru_cache(maxsize=256)
def _sharedPingFor(offers: float) -> wire.SharedPing:
    """
    One for all links that promise the same, whatever their peers need: they are pinged together.
    """
    return wire.SharedPing(offers)


_Act = Callable[[Any], object]
"""Takes the protocol."""


class LocalHello:
    """
    What this side says, alike on all the links of a factory whose peers need the same.

    @ivar hello: as the other side has it, for both have to come to the same agreement.
    @ivar frame: its bytes.
    @ivar beats: what to ping with.
    @ivar promisedWithin: see L{HeartbeatSender<twisted_heartbeat.link.interfaces.HeartbeatSender>}.
    @ivar sendHeartbeat: see there, too.
    @ivar sendGoodbye: and this.
    """

    __slots__ = ("beats", "frame", "hello", "sendGoodbye", "sendHeartbeat", "promisedWithin")

    def __init__(self, hello: wire.Hello, needed: float, speak: _Act, sendGoodbye: _Act) -> None:
        """
        @param needed: seconds within which the peer has said that it has to hear this side; 0 if it
            has not said so, or does not watch.
        """
        self.hello = hello
        self.frame = wire.encode(hello)
        self.beats = _sharedPingFor(hello.offers)
        # No bound is shorter, so a peer that asks for more than that can not have it.
        needed = needed and max(MIN_BOUND, needed)
        self.promisedWithin = min(hello.offers or inf, needed or inf) * _SOON_ENOUGH
        self.sendHeartbeat = speak
        self.sendGoodbye = sendGoodbye


@lru_cache(maxsize=256)
def _resting(maxMessage: int) -> wire.StreamReader:
    """
    One for all, to be asked for a L{single frame<wire.FrameReader.readSingleFrame>}, which changes
    nothing in it.
    """
    return wire.StreamReader.afterHello(maxMessage)
