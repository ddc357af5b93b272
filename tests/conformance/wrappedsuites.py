# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Runs tests of Twisted's own, with each of their connections wrapped:
C{python wrappedsuites.py HOW NAME...}

The wrapper is put in place where protocols meet transports: in the reactor's C{listenTCP},
C{connectTCP} and their kin; in the two networks that Twisted's tests pretend to have; and, for the
tests of C{basic} which have no network at all, where they make their protocols.

C{HOW} is C{wrapped}; or C{bare}, for nothing is put in place; or C{faulty}, for a wrapper that
loses the first byte of each chunk.  Prints one JSON object: for each name how many connections were
wrapped and how many tests were run, and what each test that failed complains of.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from trialrun import runTrial
from twisted.internet import posixbase
from twisted.internet.protocol import Factory
from twisted.protocols import loopback
from twisted.protocols.test import test_basic
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test import iosim

from twisted_heartbeat import HeartbeatFactory
from twisted_heartbeat.protocol.wrapper import WrappedProtocol

PLACES = {"TCP": (1, 2), "SSL": (1, 2), "UNIX": (1, 1)}
"""Where the factory stands among the arguments of the reactor's C{listen...} and C{connect...}."""

BASIC = [
    "FlippingLineTester",
    "LineTester",
    "LineOnlyTester",
    "ExcessivelyLargeLineCatcher",
    "ConsumingProtocol",
]
"""The protocols that the tests of C{basic} make by their names."""

BASIC_CASES = ["NetstringReceiverTests", "Int32Tests", "Int16Tests", "Int8Tests"]
"""The test cases there that make the one they have as C{protocol}."""


class Counting(HeartbeatFactory):
    """
    Knows how many it has wrapped.
    """

    wrapped = 0

    def buildProtocol(self, addr: Any) -> Any:
        """
        See C{IProtocolFactory}.
        """
        protocol = super().buildProtocol(addr)
        Counting.wrapped += isinstance(protocol, WrappedProtocol)
        return protocol


class Given(Factory):
    """
    Hands out one protocol that there is already, and keeps nothing.
    """

    def __init__(self, protocol: Any) -> None:
        self._given = [protocol]

    def buildProtocol(self, addr: Any) -> Any:
        """
        See C{IProtocolFactory}.
        """
        return self._given.pop()


def wrapped(protocol: Any) -> Any:
    """
    A protocol, wrapped.
    """
    return Counting(Given(protocol)).buildProtocol(None)


def wrapReactors() -> None:
    """
    Whoever listens or connects, on whatever reactor, has its factory wrapped.
    """
    for kind, (listening, connecting) in PLACES.items():
        _wrapArgument(f"listen{kind}", listening)
        _wrapArgument(f"connect{kind}", connecting)


def _wrapArgument(name: str, place: int) -> None:
    method: Callable[..., Any] = getattr(posixbase.PosixReactorBase, name)

    def wrapping(self: Any, *arguments: Any, **keywords: Any) -> Any:
        given = list(arguments)
        factory = given[place] if len(given) > place else keywords["factory"]
        # Over TLS the reactor hands itself a factory that is wrapped inside.
        if not isinstance(factory, TLSMemoryBIOFactory | Counting):
            factory = Counting(factory, clock=self)
        if len(given) > place:
            given[place] = factory
        else:
            keywords["factory"] = factory
        return method(self, *given, **keywords)

    setattr(posixbase.PosixReactorBase, name, wrapping)


def wrapPretendedNetworks() -> None:
    """
    The two in Twisted's test kit.
    """
    simulated, looped = iosim.connect, loopback.loopbackAsync

    def connect(
        server: Any, serverSide: Any, client: Any, clientSide: Any, *rest: Any, **more: Any
    ) -> Any:
        serverSide.protocol, clientSide.protocol = wrapped(server), wrapped(client)
        return simulated(
            serverSide.protocol, serverSide, clientSide.protocol, clientSide, *rest, **more
        )

    def loopbackAsync(server: Any, client: Any, *rest: Any, **more: Any) -> Any:
        return looped(wrapped(server), wrapped(client), *rest, **more)

    iosim.connect = connect
    loopback.loopbackAsync = loopbackAsync


class Wrapping:
    """
    In the place of a class: makes its instances, and wraps them.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __call__(self, *arguments: Any) -> Any:
        return wrapped(self._kind(*arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kind, name)


def wrapBasic() -> None:
    """
    The protocols of those tests that call them directly.
    """
    for name in BASIC:
        setattr(test_basic, name, Wrapping(getattr(test_basic, name)))
    for name in BASIC_CASES:
        case = getattr(test_basic, name)
        case.protocol = Wrapping(case.protocol)


def loseBytes() -> None:
    """
    A fault that a test of a protocol must find.
    """

    def dataReceived(self: Any, data: bytes) -> None:
        self._heartbeatProtocol.dataReceived(data[1:])

    WrappedProtocol._heartbeatData = dataReceived  # type: ignore[method-assign]


def outcome(name: str, folder: str) -> dict[str, Any]:
    """
    Run the tests of one name.
    """
    Counting.wrapped = 0
    result = runTrial(name, folder)
    return {"wrapped": Counting.wrapped, **result}


def main(how: str, *names: str) -> None:
    """
    Run them all, in one process.
    """
    if how != "bare":
        wrapReactors()
        wrapPretendedNetworks()
        wrapBasic()
    if how == "faulty":
        loseBytes()
    with TemporaryDirectory() as folder:
        print(json.dumps({name: outcome(name, folder) for name in names}))


if __name__ == "__main__":
    main(*sys.argv[1:])
