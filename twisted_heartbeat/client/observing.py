# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Wrappers around the methods through which connectors report to a factory.

A subclass may override these methods without calling its base, because
C{ReconnectingClientFactory} needs no call.  So the outermost method is wrapped, and the wrapper
tells the driver of the connector.  This happens when the class is made (C{__init_subclass__}), and
again in C{doStart}, for methods that were set on the class or the instance since.
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

OBSERVES = "twistedHeartbeatObserves"
"""An attribute of the functions that L{_observe} makes."""


def _inheritedMethod(cls: type, name: str) -> _Method:
    """
    Return a method of a class as a function: the class's own, or the next in the order of the
    bases.
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
    Whether this is the function that a connector calls, and not the base's method that a
    subclass's method calls.
    """
    own = vars(factory).get(name)
    if not hasattr(own, OBSERVES):
        own = getattr(type(factory), name)
    return observed is getattr(own, "__func__", own)


def _observeConnector(method: _Method, name: str) -> _Method:
    """
    Wrap a method so that it tells the driver of a connector first.
    """

    def observed(self: HeartbeatClientFactory, connector: IConnector, *given: Any) -> Any:
        if not _isOutermost(self, observed, name):
            return method(self, connector, *given)
        driver = self._heartbeatConnectors.driverOf(connector)
        if name == "startedConnecting":
            self.connector = connector
            driver.connecting(connector)
            return method(self, connector, *given)
        driver.disconnected(*given)
        try:
            return method(self, connector, *given)
        finally:
            driver.releaseConnector()

    return observed


def _observeProtocol(method: _Method, name: str) -> _Method:
    """
    Wrap a C{buildProtocol} so that its result gets a link, if it has none.
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
    Wrap a method so that the drivers see its calls.

    @param like: the method that the result replaces.
    """
    observed = wraps(like)(_OBSERVED[name](method, name))
    setattr(observed, OBSERVES, True)
    return observed


def observeClass(cls: type[HeartbeatClientFactory]) -> None:
    """
    Wrap the methods of a class that are not wrapped yet.
    """
    for name in _OBSERVED:
        before = getattr(cls, name)
        if not hasattr(before, OBSERVES):
            setattr(cls, name, _observe(_inheritedMethod(cls, name), name, before))


def observeInstance(factory: HeartbeatClientFactory) -> None:
    """
    Wrap the methods that the application has set on the factory itself.
    """
    for name in _OBSERVED.keys() & vars(factory).keys():
        before = vars(factory)[name]
        if not hasattr(before, OBSERVES):
            observed = _observe(lambda self, *given, own=before: own(*given), name, before)
            setattr(factory, name, MethodType(observed, factory))
