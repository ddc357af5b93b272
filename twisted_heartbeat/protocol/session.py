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
from ..core.settings import SHORTEST_BOUND

_SOON_ENOUGH = 0.75
"""Of the time within which this side has to say something, for the network takes some as well."""


@lru_cache(maxsize=256)
def _beatsFor(offers: float) -> wire.Beats:
    """
    One for all links that promise the same, whatever their peers need: they are pinged together.
    """
    return wire.Beats(offers)


_Act = Callable[[Any], object]
"""Takes the protocol."""


class _Said:
    """
    What this side says, alike on all the links of a factory whose peers need the same.

    @ivar hello: as the other side has it, for both have to come to the same agreement.
    @ivar frame: its bytes.
    @ivar beats: what to ping with.
    @ivar within: see L{Manner<twisted_heartbeat.link.interfaces.Manner>}.
    @ivar speak: see there, too.
    @ivar sayClosing: and this.
    """

    __slots__ = ("beats", "frame", "hello", "sayClosing", "speak", "within")

    def __init__(self, hello: wire.Hello, needed: float, speak: _Act, sayClosing: _Act) -> None:
        """
        @param needed: seconds within which the peer has said that it has to hear this side; 0 if it
            has not said so, or does not watch.
        """
        self.hello = hello
        self.frame = wire.encode(hello)
        self.beats = _beatsFor(hello.offers)
        # No bound is shorter, so a peer that asks for more than that can not have it.
        needed = needed and max(SHORTEST_BOUND, needed)
        self.within = min(hello.offers or inf, needed or inf) * _SOON_ENOUGH
        self.speak = speak
        self.sayClosing = sayClosing


@lru_cache(maxsize=256)
def _resting(maxMessage: int) -> wire.Stream:
    """
    One for all, to be asked for a L{whole<wire.Reader.whole>} frame, which changes nothing in it.
    """
    return wire.Stream.opened(maxMessage)
