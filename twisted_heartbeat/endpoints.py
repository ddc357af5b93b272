# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Door 3: C{keepalive:} and C{heartbeat:} before any stream endpoint's string.

C{keepalive:} sets the operating system's options on each connection, and is not there otherwise.
C{heartbeat:}, on both ends, carries whatever runs over it in a L{Tunnel}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import _parse, clientFromString, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from zope.interface import directlyProvides, implementer, providedBy

from .core.settings import Heartbeat, KeepAlive, Limits
from .net.keepalive import applyKeepAlive
from .net.reports import SafeLogger
from .tunnel import Tunnel, TunnelFactory
from .wrapping import HeartbeatFactory

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
    provides what the factory provides, forwards the rest, and its protocols are the factory's own.
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
        if protocol is not None:
            self._prepare(protocol)
        return protocol

    def _prepare(self, protocol: Any) -> None:
        # By an attribute of the instance, and only until it is used: a wrapper would cost each
        # chunk, and could not be all that the protocol is.
        connect = protocol.makeConnection

        def makeConnection(transport: Any) -> None:
            with suppress(AttributeError):
                del protocol.makeConnection
            connect(transport)
            # After that, so that what the endpoint says holds, whatever the program's default is.
            self._apply(transport)

        protocol.makeConnection = makeConnection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory!r}>"


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


@dataclass(frozen=True)
class _TunnelMaker:
    """
    Makes the factories of tunnels that are alike.
    """

    heartbeat: Heartbeat
    closeTimeout: float | None
    reactor: Any
    words: str

    def wrap(self, factory: Any) -> HeartbeatFactory:
        # No sendStall: a peer that takes nothing and speaks is slow, and one that does not speak
        # is found by its silence.
        tunnels: Any = TunnelFactory(factory, self.reactor)
        return HeartbeatFactory(
            tunnels,
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

    def __init__(
        self, wrappedEndpoint: Any, wrap: Callable[[Any], Any], opened: Callable[[Any], Any]
    ) -> None:
        """
        @param wrap: the factory's wrapper.
        @param opened: what the endpoint has connected -> what the user gets, or a Deferred of it.
        """
        self._wrappedEndpoint = wrappedEndpoint
        self._wrap = wrap
        self._opened = opened

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        See C{IStreamClientEndpoint}.
        """
        connecting: Deferred[Any] = self._wrappedEndpoint.connect(self._wrap(protocolFactory))
        return connecting.addCallback(self._opened)


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


def _itself(protocol: Any) -> Any:
    return protocol


def _whenOpen(tunnel: Tunnel) -> Deferred[Any]:
    return tunnel.whenOpen()


_PREFIXES: dict[str, tuple[Prefix, Callable[..., Any], Callable[[Any], Any]]] = {
    KEEPALIVE.word: (KEEPALIVE, _keepAlive, _itself),
    HEARTBEAT.word: (HEARTBEAT, _heartbeat, _whenOpen),
}


def _parsed(
    word: str, parse: Parse, reactor: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]
) -> tuple[Any, Callable[[Any], Any]]:
    """
    @return: the endpoint behind the prefix, and the wrapper of its factories.
    """
    prefix, settings, _ = _PREFIXES[word]
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
    endpoint, wrap = _parsed(word, clientFromString, reactor, arguments, keywords)
    return PrefixedClient(endpoint, wrap, _PREFIXES[word][2])


def serverFor(
    word: str, reactor: Any, arguments: Iterable[Any], keywords: Mapping[str, Any]
) -> PrefixedServer:
    """
    The endpoint to listen at; all else as for L{clientFor}.
    """
    return PrefixedServer(*_parsed(word, serverFromString, reactor, arguments, keywords))
