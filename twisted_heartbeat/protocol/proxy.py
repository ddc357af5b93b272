# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ProtocolProxy}: stands before a protocol, and passes for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from typing import Any, cast

from .overrides import setOwn

_SPECIAL = (
    *("__bool__", "__len__", "__length_hint__", "__contains__", "__iter__", "__reversed__"),
    *("__next__", "__getitem__", "__setitem__", "__delitem__", "__call__", "__enter__"),
    *("__exit__", "__await__", "__aiter__", "__anext__", "__aenter__", "__aexit__"),
    *("__lt__", "__le__", "__gt__", "__ge__", "__str__", "__bytes__", "__format__"),
)
"""Methods that Python looks up in the class of an object, and not by C{__getattr__}."""


class ProtocolProxy:
    """
    Stands between a transport and a protocol that knows nothing of it.  A program can tell the
    proxy from the protocol only by C{is} and C{type}.

    The proxy equals its protocol and hashes like it.  It has the protocol's class (C{__class__}),
    its special methods and interfaces, and forwards unknown attributes.  An attribute that is set
    on the proxy is set on the protocol, unless the proxy's class has it.
    """

    # The name is long, because a proxy's attribute hides the protocol's of the same name.
    _heartbeatProtocol: Any

    def __init__(self, protocol: Any) -> None:
        setOwn(self, "_heartbeatProtocol", protocol)

    __class__: Any = property(
        lambda self: self._heartbeatProtocol.__class__,
        lambda self, kind: setattr(self._heartbeatProtocol, "__class__", kind),
    )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ProtocolProxy):
            other = other._heartbeatProtocol
        return bool(self._heartbeatProtocol == other)

    def __hash__(self) -> int:
        return hash(self._heartbeatProtocol)

    def __reduce_ex__(self, version: Any) -> Any:
        return self._heartbeatProtocol.__reduce_ex__(version)

    def __dir__(self) -> Iterable[str]:
        return dir(self._heartbeatProtocol)

    def __getattr__(self, name: str) -> Any:
        if name == "_protocol":
            # The proxies of Twisted's ClientService have this one, unless the protocol has its own.
            return getattr(self._heartbeatProtocol, name, self._heartbeatProtocol)
        return getattr(self._heartbeatProtocol, name)

    def __setattr__(self, name: str, value: object) -> None:
        # The transport calls the proxy's methods, so they must be replaced on the proxy.
        if hasattr(type(self), name):
            setOwn(self, name, value)
        else:
            setattr(self._heartbeatProtocol, name, value)

    def __delattr__(self, name: str) -> None:
        # Not by way of __dict__, which would have Python make one.
        try:
            object.__delattr__(self, name)
        except AttributeError:
            delattr(self._heartbeatProtocol, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._heartbeatProtocol!r}>"


def proxyOf(kind: type[ProtocolProxy], protocol: Any, *arguments: Any) -> Any:
    """
    Return a proxy of a class, with the special methods of the protocol.
    """
    kinds = cast(tuple[Hashable, Hashable], (kind, type(protocol)))
    return _proxyKind(*kinds)(protocol, *arguments)


@lru_cache(maxsize=256)
def _proxyKind(base: Any, kind: Any) -> Any:
    """
    Return the class of proxies for a class of protocols: C{base} itself, unless the protocols have
    special methods.
    """
    has = {name for one in kind.__mro__ if one is not object for name in vars(one)}
    special = {name: _forwarded(name) for name in _SPECIAL if name in has}
    return type(base.__name__, (base,), special) if special else base


def _forwarded(name: str) -> Callable[..., Any]:
    def forwarded(self: ProtocolProxy, *arguments: Any) -> Any:
        return getattr(type(self._heartbeatProtocol), name)(self._heartbeatProtocol, *arguments)

    return forwarded
