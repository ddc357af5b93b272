# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Door 3: C{keepalive:} and C{heartbeat:} before any stream endpoint's string.

C{keepalive:} sets the operating system's options on each connection, and is not there otherwise.
C{heartbeat:}, on both ends, carries whatever runs over it in a L{Tunnel}.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import _parse, clientFromString, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from zope.interface import directlyProvides, implementer, providedBy

from .core.causes import ConnectFailed
from .core.settings import Heartbeat, KeepAlive, Limits
from .net.keepalive import applyKeepAlive
from .net.reports import SafeLogger
from .net.transport import abort
from .protocol import MethodCover
from .tunnel import EndpointHistory, Tunnel, TunnelFactory
from .wrapping import HeartbeatFactory, ProtocolProxy

_log = SafeLogger()

Parse = Callable[[Any, str], Any]
"""A reactor and a description -> an endpoint: C{clientFromString}, or C{serverFromString}."""


class UnknownArgument(ValueError):
    """
    An argument that no part of a description takes.

    @ivar argument: its name.
    @ivar takers: what each part takes, from the outermost in.
    """

    def __init__(self, argument: str, takers: Iterable[str]) -> None:
        self.argument = argument
        self.takers = tuple(takers)
        super().__init__(f"there is no argument {argument!r} here: {'; '.join(self.takers)}")


@dataclass(frozen=True)
class Prefix:
    """
    What stands before an endpoint's string.

    @ivar word: the prefix, without its colon.
    @ivar arguments: what it takes.
    @ivar example: for whoever has it wrong.
    """

    word: str
    arguments: tuple[str, ...]
    example: str

    @property
    def takes(self) -> str:
        """
        What it takes, in words.
        """
        return f"{self.word}: takes {', '.join(self.arguments)}"

    def split(
        self, arguments: Iterable[Any], keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, str]]:
        """
        Part what Twisted's parser has made of the whole string.

        In the flat form, C{keepalive:tcp:host:7000:idle=5}, the prefix takes those keywords that
        are its own, and all else is the endpoint's.  In the quoted form,
        C{keepalive:tcp\\:host\\:7000:idle=5}, all that is not quoted is the prefix's.

        @return: the description of the endpoint behind the prefix, and the prefix's own arguments.
        @raise ValueError: if there is no endpoint, or the quoted one is followed by something that
            the prefix does not take.
        """
        positional = [_text(argument) for argument in arguments]
        named = {_text(name): _text(value) for name, value in keywords.items()}
        quoted = self._quoted(positional, named)
        own = {name: value for name, value in named.items() if name in self.arguments}
        others = {name: value for name, value in named.items() if name not in self.arguments}
        if quoted is None:
            if not positional or not positional[0]:
                raise ValueError(
                    f"{self.word}: stands before no endpoint: there must be one, "
                    f"as in {self.example}"
                )
            return _joined(positional, others), own
        for name in others:
            raise UnknownArgument(name, [f"{self.takes}, and the endpoint is within its quotes"])
        for argument in positional:
            raise ValueError(
                f"{self.word}: stands before {quoted!r}, and {argument!r} follows that: "
                f"there may only be {', '.join(self.arguments)}"
            )
        return quoted, own

    @staticmethod
    def _quoted(positional: list[str], named: dict[str, str]) -> str | None:
        """
        Take out the endpoint, if it is quoted: no name of an endpoint has a colon.
        """
        if positional:
            return positional.pop(0) if ":" in positional[0] else None
        for name in named:
            if ":" in name:
                # Twisted's quoteStringArgument leaves the first of the endpoint's own "=" bare.
                return f"{name}={named.pop(name)}"
        return None

    def inner(self, parse: Parse, reactor: Any, description: str) -> Any:
        """
        The endpoint behind the prefix.

        @raise ValueError: in place of a C{TypeError}, which is what Twisted's own endpoints have
            for an argument that they do not know or lack; everything else passes.
        """
        try:
            return parse(reactor, description)
        except UnknownArgument as error:
            raise UnknownArgument(error.argument, [self.takes, *error.takers]) from error
        except TypeError as error:
            said = " ".join(str(error).split())
            for name in _parse(description)[1]:
                if repr(name) in said:
                    behind = f"and of {description!r} it is said: {said}"
                    raise UnknownArgument(name, [self.takes, behind]) from error
            raise ValueError(
                f"{self.word}: can not stand before {description!r}, of which it is said: {said}"
            ) from error


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else word.decode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    # Twisted's quoteStringArgument knows nothing of "=".
    for special in "\\:=":
        text = text.replace(special, "\\" + special)
    return text


def _joined(arguments: Iterable[str], keywords: Mapping[str, str]) -> str:
    """
    The opposite of Twisted's parser.
    """
    pairs = [f"{_escaped(name)}={_escaped(value)}" for name, value in keywords.items()]
    return ":".join([*map(_escaped, arguments), *pairs])


_PARSERS = (clientFromString.__code__, serverFromString.__code__)


def _wholeDescription() -> str | bytes:
    """
    The whole string that Twisted is parsing; nothing where Python does not tell.  Twisted's parser
    keeps the last of several arguments of one name, and hands no other on.
    """
    frame = sys._getframe() if hasattr(sys, "_getframe") else None
    while frame is not None:
        if frame.f_code in _PARSERS:
            return cast("str | bytes", frame.f_locals.get("description", ""))
        frame = frame.f_back
    return ""


def refuseRepeated(word: str, description: str | bytes) -> None:
    """
    @param description: the whole string of an endpoint.
    @raise ValueError: if an argument is in it twice.
    """
    found: dict[str, str] = {}
    for argument in re.findall(r"(?:\\.|[^\\:])+", _text(description), re.DOTALL):
        named = re.fullmatch(r"((?:\\.|[^\\=])*)=(.*)", argument, re.DOTALL)
        if named is None:
            continue
        name, value = (re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in named.groups())
        if name in found:
            raise ValueError(
                f"{word}: {name} is given twice, as {found[name]!r} and as {value!r}: "
                "it may be given once"
            )
        found[name] = value


def _number(text: str) -> Any:
    """
    The number that a text is; or the text itself, for a setting that says what is wrong with it.
    """
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _numbers(own: Mapping[str, str]) -> dict[str, Any]:
    return {name: _number(text) for name, text in own.items()}


# keepalive:

KEEPALIVE = Prefix(
    "keepalive", ("idle", "interval", "count", "userTimeout"), "keepalive:tcp:8080:idle=30"
)


class KeepAliveFactory:
    """
    Has each connection of another factory set its keepalive, and is not there otherwise: it
    provides what the factory provides, forwards the rest, and its protocols are the factory's own,
    or stand before one that cannot be changed.
    """

    def __init__(self, factory: Any, apply: Callable[[Any], None]) -> None:
        """
        @param apply: takes a transport.
        """
        self._factory = factory
        self._apply = apply
        directlyProvides(self, providedBy(factory))

    def buildProtocol(self, addr: Any) -> Any:
        """
        See C{IProtocolFactory}.
        """
        protocol = self._factory.buildProtocol(addr)
        if protocol is None or _UntilConnected(protocol, self._apply).cover():
            return protocol
        return _ConnectedProxy.of(protocol, self._apply)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory!r}>"


class _UntilConnected:
    """
    Covers the methods by which a protocol is connected, until one of them is called.  A proxy for
    good would cost each chunk, and could not be all that the protocol is.

    Most transports call C{makeConnection}.  Some set C{protocol.transport} themselves and call
    C{connectionMade} alone.
    """

    def __init__(self, protocol: Any, connected: Callable[[Any], object]) -> None:
        """
        @param connected: called once with the transport, after the protocol has been told.  So
            what the endpoint says holds, whatever the program's default is.
        """
        self._protocol = protocol
        self._connected = connected
        self._covers: dict[str, MethodCover] = {}

    def cover(self) -> bool:
        """
        @return: whether the protocol can be covered.  If not, nothing is.
        """
        for name, cover in (
            ("makeConnection", self._makeConnection),
            ("connectionMade", self._connectionMade),
        ):
            if not hasattr(self._protocol, name):
                continue
            self._covers[name] = MethodCover(self._protocol, name, cover)
            if not self._covers[name].laid:
                self._lift()
                return False
        return True

    def _lift(self) -> dict[str, MethodCover]:
        covers, self._covers = self._covers, {}
        for cover in covers.values():
            cover.lift()
        return covers

    def _makeConnection(self, transport: Any) -> None:
        self._lift()["makeConnection"].covered(transport)
        self._connected(transport)

    def _connectionMade(self) -> None:
        self._lift()["connectionMade"].covered()
        self._connected(self._protocol.transport)


class _ConnectedProxy(ProtocolProxy):
    """
    Stands before a protocol of which no method can be covered.
    """

    def __init__(self, protocol: Any, connected: Callable[[Any], object]) -> None:
        super().__init__(protocol)
        self._keep("_connected", connected)

    def makeConnection(self, transport: Any) -> None:
        self._protocol.makeConnection(transport)
        self._connected(transport)

    def connectionMade(self) -> None:
        self._protocol.connectionMade()
        self._connected(self._protocol.transport)


class _KeepAliveSetter:
    """
    Sets the options, and says once where there are none.
    """

    def __init__(self, keepAlive: KeepAlive, words: str) -> None:
        self._keepAlive = keepAlive
        self._words = words
        self._said = False

    def apply(self, transport: Any) -> None:
        applied = applyKeepAlive(transport, self._keepAlive)
        if not applied.enabled and not self._said:
            self._said = True
            reason = " ".join(applied.missing)
            _log.warn("{endpoint}: {reason}", endpoint=self._words, reason=reason)

    def wrap(self, factory: Any) -> KeepAliveFactory:
        return KeepAliveFactory(factory, self.apply)


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


# Both.


@implementer(IStreamClientEndpoint)
class PrefixedClient:
    """
    An endpoint to connect to, behind a prefix.
    """

    def __init__(self, wrappedEndpoint: Any, wrap: Callable[[Any], Any]) -> None:
        """
        @param wrap: the factory's wrapper.
        """
        self._wrappedEndpoint = wrappedEndpoint
        self._wrap = wrap

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        See C{IStreamClientEndpoint}.
        """
        factory = self._wrap(protocolFactory)
        connecting: Deferred[Any] = self._wrappedEndpoint.connect(factory)
        if isinstance(factory, _TunnelLinks):
            connecting.addCallback(factory.opened)
        return connecting


@implementer(IStreamServerEndpoint)
class PrefixedServer:
    """
    An endpoint to listen at, behind a prefix.
    """

    def __init__(self, wrappedEndpoint: Any, wrap: Callable[[Any], Any]) -> None:
        """
        @param wrap: the factory's wrapper.
        """
        self._wrappedEndpoint = wrappedEndpoint
        self._wrap = wrap

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """
        See C{IStreamServerEndpoint}.
        """
        listening: Deferred[Any] = self._wrappedEndpoint.listen(self._wrap(protocolFactory))
        return listening


def _keepAlive(own: Mapping[str, str], reactor: Any, words: str) -> Callable[[Any], Any]:
    return _KeepAliveSetter(KeepAlive(**_numbers(own)), words).wrap


def _heartbeat(own: Mapping[str, str], reactor: Any, words: str) -> Callable[[Any], Any]:
    numbers = _numbers(own)
    heartbeat = Heartbeat.within(numbers["within"]) if "within" in numbers else Heartbeat()
    closeTimeout = numbers.get("closeTimeout", Limits().closeTimeout)
    # It says what is wrong with it.
    Limits(closeTimeout=closeTimeout)
    return _TunnelMaker(heartbeat, closeTimeout, reactor, words).wrap


_PREFIXES: dict[str, tuple[Prefix, Callable[..., Any]]] = {
    KEEPALIVE.word: (KEEPALIVE, _keepAlive),
    HEARTBEAT.word: (HEARTBEAT, _heartbeat),
}


def _parsed(
    word: str, parse: Parse, reactor: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]
) -> tuple[Any, Callable[[Any], Any]]:
    """
    @return: the endpoint behind the prefix, and the wrapper of its factories.
    """
    prefix, settings = _PREFIXES[word]
    refuseRepeated(word, _wholeDescription())
    description, own = prefix.split(arguments, keywords)
    wrap = settings(own, reactor, f"{word}:{description}")
    return prefix.inner(parse, reactor, description), wrap


def clientFor(
    word: str, reactor: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]
) -> PrefixedClient:
    """
    The endpoint to connect to that a prefix and what follows it describe.

    @param word: C{"keepalive"} or C{"heartbeat"}.
    @param arguments: what Twisted's parser has found behind it, and C{keywords} likewise.
    @raise ValueError: if something is wrong with it.
    """
    return PrefixedClient(*_parsed(word, clientFromString, reactor, arguments, keywords))


def serverFor(
    word: str, reactor: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]
) -> PrefixedServer:
    """
    The endpoint to listen at; all else as for L{clientFor}.
    """
    return PrefixedServer(*_parsed(word, serverFromString, reactor, arguments, keywords))
