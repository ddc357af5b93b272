# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Methods that a subclass of the client factory overrides, observed whatever it does in them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IConnector

if TYPE_CHECKING:
    from .factory import HeartbeatClientFactory


_Method = Callable[..., Any]

_OBSERVES = "twistedHeartbeatObserves"
"""An attribute of the functions that L{_observe} makes."""


def _inheritedMethod(cls: type, name: str) -> _Method:
    """
    A method of a class, as a function: its own, or the next one in the order of the bases.
    """
    if name in vars(cls):
        own = vars(cls)[name]
        if not hasattr(own, "__get__"):
            # A functools.partial, for example, is not bound.
            return lambda self, *given: own(*given)
        return lambda self, *given: own.__get__(self, type(self))(*given)
    return lambda self, *given: getattr(super(cls, self), name)(*given)


def _isOutermost(factory: HeartbeatClientFactory, observed: _Method, name: str) -> bool:
    """
    Whether a connector has called this function, and not a subclass's method its base's.
    """
    own = vars(factory).get(name)
    if not hasattr(own, _OBSERVES):
        own = getattr(type(factory), name)
    return observed is getattr(own, "__func__", own)


def _observeConnector(method: _Method, name: str) -> _Method:
    """
    A method that tells the driver of a connector what that did, and then does what it did before.
    """

    def observed(self: HeartbeatClientFactory, connector: IConnector, *given: Any) -> Any:
        if not _isOutermost(self, observed, name):
            return method(self, connector, *given)
        driver = self._heartbeatConnectors.of(connector)
        if name == "startedConnecting":
            self.connector = connector
            driver.connecting(connector)
            return method(self, connector, *given)
        driver.disconnected(*given)
        try:
            return method(self, connector, *given)
        finally:
            driver.settled()

    return observed


def _observeProtocol(method: _Method, name: str) -> _Method:
    """
    A C{buildProtocol} that gives what was built before a link, if it has none.
    """

    def observed(self: HeartbeatClientFactory, addr: Any) -> Any:
        return self._heartbeatConnectors.build(lambda: method(self, addr))

    return observed


_OBSERVED = {
    "buildProtocol": _observeProtocol,
    "startedConnecting": _observeConnector,
    "clientConnectionFailed": _observeConnector,
    "clientConnectionLost": _observeConnector,
}


def _observe(method: _Method, name: str, like: Any) -> _Method:
    """
    Let the drivers see what connectors tell a factory.  Otherwise they would miss it wherever a
    subclass overrides a method, or another base has it, and does not call the next one:
    C{ReconnectingClientFactory} needs no such call.

    @param like: the method in whose place the result is put.
    """
    observed = wraps(like)(_OBSERVED[name](method, name))
    setattr(observed, _OBSERVES, True)
    return observed


def _observeClass(cls: type[HeartbeatClientFactory]) -> None:
    for name in _OBSERVED:
        before = getattr(cls, name)
        if not hasattr(before, _OBSERVES):
            setattr(cls, name, _observe(_inheritedMethod(cls, name), name, before))


def _observeInstance(factory: HeartbeatClientFactory) -> None:
    """
    The same for methods that the application has set on the factory itself.
    """
    for name in _OBSERVED.keys() & vars(factory).keys():
        before = vars(factory)[name]
        if not hasattr(before, _OBSERVES):
            observed = _observe(lambda self, *given, own=before: own(*given), name, before)
            setattr(factory, name, MethodType(observed, factory))
