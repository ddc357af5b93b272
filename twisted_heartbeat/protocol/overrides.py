# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{MethodCover}: a method put in the place of one of an application's object, and taken back.

Problem: the transport calls methods of the protocol: C{dataReceived}, C{connectionLost} and others.
The package must hear of these calls.  The protocol's class may override each method without a call
of super, and the instance may be given other methods at any time: before C{makeConnection}, later,
again.  A proxy would cost each chunk a call, and is no substitute where a program asks for C{is}.

Idea: cover the method, whatever it is at the time, right before it is called.

States of a cover: made (L{MethodCover.covered} is known), laid (the object's own attribute is the
cover), lifted (the object is as before).  An object without a place for the attribute
(C{__slots__}), a class that prefers another value, and a proxy can not be covered;
L{MethodCover.lay} says so.

Invariants:

 - A lifted cover leaves what the application has put over it, or in its place, meanwhile.
 - Covers may lie on one another.  The lower of two is lifted out from under the upper one.
 - The class of the object is never changed, nor are other objects of it.

Three parts of the package cover methods:

 - The link of a mixed-in protocol, by L{DeliveryCover}.  A socket of Twisted's, also under TLS,
   tells the link before each call (C{MixedInLink.observesLoss}).  Then C{dataReceived} is covered
   until the first bytes have been delivered.  At the end the link takes the protocol's place in the
   socket; C{connectionLost} is covered only where TLS or another layer is between the two.  Any
   other transport tells nothing.  There the covers are laid at the beginning, and again where they
   are found missing: after C{connectionMade}, after each delivery, at each check of the peer.  The
   link does not hear what came before that check, and does not count it as silence.
 - The server's admission holds back what a peer says before it is admitted.
 - The C{keepalive:} prefix waits for the protocol's connection.

Cost: nothing while no cover is laid.  A laid one costs its object a C{__dict__} entry, and each
call of the method two calls more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .delivery import MIXIN_DELIVERIES

if TYPE_CHECKING:
    from ..link.link import Link


def setOwn(target: object, name: str, value: object) -> None:
    """
    Set an attribute of an object itself, whatever its class does in C{__setattr__}.
    """
    object.__setattr__(target, name, value)


def _deleteOwn(target: object, name: str) -> None:
    """
    Delete an attribute of an object itself, so that its class's shows again.
    """
    # Not by way of __dict__, which would have Python make one.
    with suppress(AttributeError):
        object.__delattr__(target, name)


class MethodCover:
    """
    Stands in the place of a method of an object from L{lay} to L{lift}.

    @ivar covered: what is there otherwise, of the object or of its class.
    """

    __slots__ = ("_name", "_replacement", "_target", "covered")

    def __init__(self, target: object, name: str, replacement: Callable[..., object]) -> None:
        """
        @param name: the method's.
        @param replacement: called in the method's place, with its arguments.
        """
        self._target = target
        self._name = name
        self._replacement = replacement
        self.covered = getattr(target, name)

    def lay(self) -> bool:
        """
        Put the cover in the method's place.

        @return: whether it is there now.
        """
        try:
            setOwn(self._target, self._name, self)
        except (AttributeError, TypeError):
            return False
        if getattr(self._target, self._name, None) is self:
            return True
        _deleteOwn(self._target, self._name)
        return False

    def lift(self) -> None:
        """
        Leave the object as it was, unless something else has been put there meanwhile.
        """
        target, name = self._target, self._name
        found = getattr(target, name, None)
        if found is self:
            _deleteOwn(target, name)
            if getattr(target, name, None) != self.covered:
                setOwn(target, name, self.covered)
        elif isinstance(found, MethodCover) and found.covered is self:
            found.covered = self.covered

    def __call__(self, *arguments: Any, **keywords: Any) -> object:
        return self._replacement(*arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        # A cover passes for the method: trial's addCleanup asks for its __name__, for example.
        return getattr(object.__getattribute__(self, "covered"), name)


class DeliveryCover(MethodCover):
    """
    Tells a link of the call of one method of its mixed-in protocol, once.
    """

    __slots__ = ("_link",)

    def __init__(self, link: Link, name: str) -> None:
        super().__init__(link.protocol, name, MIXIN_DELIVERIES[name])
        self._link = link

    def __call__(self, *arguments: Any, **keywords: Any) -> object:
        if keywords or len(arguments) > 1:
            # No transport passes these: the protocol has called its own method.
            return self.covered(*arguments, **keywords)
        if self._name != "connectionLost":
            self.lift()
        return self._replacement(self._link, self.covered, *arguments)
