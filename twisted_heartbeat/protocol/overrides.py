# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Methods put in the place of those of an object that is not this package's, and taken back.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .delivery import MIXIN_DELIVERIES

if TYPE_CHECKING:
    from ..link.link import Link


def _put(one: object, name: str, value: object) -> None:
    """
    Set an attribute of an object itself, whatever its class does with attributes that are set.
    """
    object.__setattr__(one, name, value)


def _forget(one: object, name: str) -> None:
    """
    Uncover what its class has.  Not by way of C{__dict__}, which would have Python make one.
    """
    with suppress(AttributeError):
        object.__delattr__(one, name)


def coverMethod(one: object, name: str, cover: object) -> bool:
    """
    Put something in the place of a method of an object that is not this package's.

    @return: whether it is there now.  Not if the object has no place for it (C{__slots__}), or its
        class prefers another, or it is a proxy that Python itself cannot look into.
    """
    try:
        _put(one, name, cover)
    except (AttributeError, TypeError):
        return False
    if getattr(one, name, None) is cover:
        return True
    _forget(one, name)
    return False


def liftCover(one: object, name: str, cover: object, covered: object) -> None:
    """
    Leave the object as it was, unless something else has been put there meanwhile.
    """
    found = getattr(one, name, None)
    if found is cover:
        _forget(one, name)
        if getattr(one, name, None) != covered:
            _put(one, name, covered)
    elif isinstance(found, _Cover) and found.covered is cover:
        found.covered = covered


# How a link hears of what its transport tells the protocol.
#
# Problem: the transport calls C{dataReceived}, C{connectionLost} and C{handshakeCompleted} of the
# protocol.  The link must hear of these calls.  The class may override each method without a call
# of super, and the instance may be given others at any time: before makeConnection, later, again.
#
# Idea: cover the method, whatever that is at the time, right before it is called.
#
# - A socket of Twisted's, also under TLS, tells the link before each call (C{Link.observesLoss}).
#   Then C{dataReceived} is covered until the first bytes have been delivered, and
#   C{connectionLost} at the end.  In between the instance is as without the mix-in.
# - Any other transport tells nothing.  There the covers are laid at the beginning, and again where
#   they are found missing: after C{connectionMade}, after each delivery, at each look at the peer.
#   What came before such a look was not heard, and is no silence.


class MethodCover:
    """
    Stands in the place of a method of an object that is not this package's, until it is lifted.

    @ivar covered: what is there otherwise, of the object or of its class.
    @ivar laid: whether it is in place.
    """

    __slots__ = ("_cover", "_name", "_one", "covered", "laid")

    def __init__(self, one: object, name: str, cover: object) -> None:
        """
        @param name: the method's.
        @param cover: what is called in its place.
        """
        self._one, self._name, self._cover = one, name, cover
        self.covered = getattr(one, name)
        self.laid = coverMethod(one, name, cover)

    def lift(self) -> None:
        """
        Leave the object as it was.
        """
        liftCover(self._one, self._name, self._cover, self.covered)


class _Cover:
    """
    Stands before one method of a protocol.

    @ivar covered: what is there otherwise, of the instance or of its class.
    """

    __slots__ = ("_link", "_name", "covered")

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self.covered = getattr(link.protocol, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> object:
        if keywords or len(arguments) > 1:
            # No transport passes these: the protocol has called its own method.
            return self.covered(*arguments, **keywords)
        if self._name != "connectionLost":
            self.lift(self._link.protocol)
        return MIXIN_DELIVERIES[self._name](self._link, self.covered, *arguments)

    def __getattr__(self, name: str) -> Any:
        # It passes for the method: trial's addCleanup asks for its __name__, for example.
        return getattr(object.__getattribute__(self, "covered"), name)

    def lift(self, protocol: object) -> None:
        """
        Leave the protocol as it was.
        """
        liftCover(protocol, self._name, self, self.covered)
