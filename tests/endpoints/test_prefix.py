# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Endpoint prefixes: what stands before an endpoint's string is parsed as one would expect, or refused
in one sentence; and C{keepalive:} sets what it says, on every kind of connection.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    _parse,
    clientFromString,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocolNegotiationFactory,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.plugin import getPlugins
from twisted.plugins import twisted_heartbeat_plugin
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_heartbeat import Heartbeat, KeepAlive, Limits
from twisted_heartbeat.core import wire
from twisted_heartbeat.endpoints.build import clientFor, serverFor
from twisted_heartbeat.endpoints.heartbeat import HEARTBEAT
from twisted_heartbeat.endpoints.keepalive import KEEPALIVE, KeepAliveFactory
from twisted_heartbeat.endpoints.prefix import Prefix, UnknownArgument
from twisted_heartbeat.transport.keepalive import realSocket

from ..support.loopback import Certificates, Loopback, Peers, within
from ..support.virtualnetwork import PEER, FakeTransport, Kept, KeptFactory, Recorder


def split(prefix: Prefix, description: str) -> tuple[str, dict[str, str]]:
    """
    What a prefix makes of a whole string, once Twisted has parsed it.
    """
    arguments, keywords = _parse(description)
    assert arguments[:1] == [prefix.word]
    return prefix.split(arguments[1:], keywords)


# The string -> what is behind the prefix, and what is the prefix's own.
PARSED: dict[str, tuple[str, dict[str, str]]] = {
    r"keepalive:tcp:8080": ("tcp:8080", {}),
    r"keepalive:tcp:8080:idle=30": ("tcp:8080", {"idle": "30"}),
    r"keepalive:tcp:host:7000:idle=5:interval=6:count=3:userTimeout=20": (
        "tcp:host:7000",
        {"idle": "5", "interval": "6", "count": "3", "userTimeout": "20"},
    ),
    r"keepalive:idle=5:tcp:host:7000": ("tcp:host:7000", {"idle": "5"}),
    r"keepalive:tcp:host:7000:timeout=9:idle=5": ("tcp:host:7000:timeout=9", {"idle": "5"}),
    r"keepalive:tcp:host=h:port=1:idle=5": ("tcp:host=h:port=1", {"idle": "5"}),
    r"keepalive:tcp:fe80\:\:1:7000:idle=5": (r"tcp:fe80\:\:1:7000", {"idle": "5"}),
    r"keepalive:tcp:8080:interface=\:\:1:idle=5": (r"tcp:8080:interface=\:\:1", {"idle": "5"}),
    r"keepalive:tls:h:443:endpoint=tcp\:h\:1\:timeout=9:idle=5": (
        r"tls:h:443:endpoint=tcp\:h\:1\:timeout\=9",
        {"idle": "5"},
    ),
    r"keepalive:unix:/tmp/a\=b:idle=5": (r"unix:/tmp/a\=b", {"idle": "5"}),
    r"keepalive:unix:C\:\\x:idle=5": (r"unix:C\:\\x", {"idle": "5"}),
    r"keepalive:stdio": ("stdio", {}),
    r"keepalive:tcp:": ("tcp:", {}),
    r"keepalive:tcp\:8080": ("tcp:8080", {}),
    r"keepalive:tcp\:host\:7000:idle=5": ("tcp:host:7000", {"idle": "5"}),
    r"keepalive:tcp\:host\:7000\:timeout\=9:idle=5": ("tcp:host:7000:timeout=9", {"idle": "5"}),
    r"keepalive:tcp\:host\:7000\:timeout=9:idle=5": ("tcp:host:7000:timeout=9", {"idle": "5"}),
    r"keepalive:serial\:/dev/tty\:interval=1:interval=5": (
        "serial:/dev/tty:interval=1",
        {"interval": "5"},
    ),
    r"keepalive:tcp\:fe80\\\:\\\:1\:7000": (r"tcp:fe80\:\:1:7000", {}),
    r"keepalive:haproxy:tcp:8080:idle=5": ("haproxy:tcp:8080", {"idle": "5"}),
    r"keepalive:heartbeat:tcp:hub:1:idle=5:within=8": (
        "heartbeat:tcp:hub:1:within=8",
        {"idle": "5"},
    ),
    r"keepalive:heartbeat:tcp\:hub\:1:idle=5:within=8": (
        r"heartbeat:tcp\:hub\:1:within=8",
        {"idle": "5"},
    ),
    r"keepalive:heartbeat\:tcp\:hub\:1\:within=8:idle=5": (
        "heartbeat:tcp:hub:1:within=8",
        {"idle": "5"},
    ),
    r"heartbeat:keepalive:tcp:hub:1:idle=5:within=8": (
        "keepalive:tcp:hub:1:idle=5",
        {"within": "8"},
    ),
    r"heartbeat:tcp:hub:7000:within=8:closeTimeout=2": (
        "tcp:hub:7000",
        {"within": "8", "closeTimeout": "2"},
    ),
    r"heartbeat:tcp:hub:7000:timeout=3": ("tcp:hub:7000:timeout=3", {}),
}


@pytest.mark.parametrize("description", PARSED)
def test_parted(description: str) -> None:
    """
    The prefix takes what is its own, in the flat and in the quoted form, and what is left is the
    endpoint's string as it would be without the prefix.
    """
    prefix = KEEPALIVE if description.startswith("keepalive") else HEARTBEAT
    assert split(prefix, description) == PARSED[description]
    asBytes = _parse(description.encode())
    assert prefix.split(asBytes[0][1:], asBytes[1]) == PARSED[description]


WORDS = st.text(max_size=12)
# Twisted's own parser takes no other names.
NAMES = st.text(st.characters(max_codepoint=127, exclude_characters=":"), max_size=12).filter(
    lambda name: name not in KEEPALIVE.arguments
)


@given(st.lists(WORDS, max_size=3), st.dictionaries(NAMES, WORDS, max_size=3))
def test_flatFormLosesNothing(arguments: list[str], keywords: dict[str, str]) -> None:
    """
    Whatever is in the arguments of the endpoint behind the prefix, colons, backslashes and equals
    signs included, Twisted's parser finds it there again.
    """
    whole = ["tcp", *arguments]
    description, own = KEEPALIVE.split(whole, keywords)
    assert _parse(description) == (whole, keywords)
    assert own == {}


@given(st.text(st.characters(max_codepoint=127), max_size=12), st.booleans())
def test_quotedFormLosesNothing(rest: str, own: bool) -> None:
    """
    What Twisted's C{quoteStringArgument} has quoted comes out as it went in.
    """
    inner = f"tcp:{rest}"
    description = f"keepalive:{quoteStringArgument(inner)}" + (":idle=5" if own else "")
    assert split(KEEPALIVE, description) == (inner, {"idle": "5"} if own else {})


SERVER, CLIENT = serverFromString, clientFromString
TAKES = "keepalive: takes idle, interval, count, userTimeout"

# What is wrong -> whose parser finds it, the string, and the parts of the one sentence.
WRONG: dict[str, tuple[Callable[..., Any], str, list[str]]] = {
    "nothing": (
        SERVER,
        "keepalive",
        ["keepalive: stands before no endpoint", "tcp:8080"],
    ),
    "an empty place": (CLIENT, "keepalive:", ["stands before no endpoint"]),
    "only its own": (CLIENT, "heartbeat:within=8", ["heartbeat: stands before no endpoint"]),
    "a misspelt argument": (CLIENT, "keepalive:tcp:h:1:idel=5", ["'idel'", TAKES, "tcp:h:1"]),
    "the same, listening": (SERVER, "keepalive:tcp:1:idel=5", ["'idel'", TAKES, "tcp:1"]),
    "the same, over TLS": (CLIENT, "keepalive:tls:h:1:idel=5", ["'idel'", TAKES]),
    "the same, over UNIX": (CLIENT, "keepalive:unix:/x:idel=5", ["'idel'", TAKES]),
    "the same, haproxy": (SERVER, "keepalive:haproxy:tcp:1:idel=5", ["'idel'", TAKES]),
    "the same, two prefixes": (
        CLIENT,
        "keepalive:heartbeat:tcp:h:1:idel=5",
        ["'idel'", TAKES, "heartbeat: takes within, closeTimeout"],
    ),
    "another's name": (CLIENT, "keepalive:tcp:h:1:reactor=5", ["'reactor'", TAKES]),
    "itself": (SERVER, "keepalive:tcp:1:self=5", ["'self'", TAKES]),
    "unquoted behind quotes": (
        SERVER,
        r"keepalive:tcp\:1:interface=x",
        ["'interface'", TAKES, "within its quotes"],
    ),
    "a place behind quotes": (SERVER, r"keepalive:tcp\:1:50", ["'50' follows", "'tcp:1'"]),
    "no port": (CLIENT, "keepalive:tcp:h", ["can not stand before 'tcp:h'", "'port'"]),
    "too much": (CLIENT, "keepalive:tcp:h:1:2", ["can not stand before 'tcp:h:1:2'"]),
    "no number": (SERVER, "keepalive:tcp:1:idle=soon", ["idle is 'soon'", "a whole number"]),
    "an empty one": (SERVER, "keepalive:tcp:1:count=", ["count is ''", "a whole number"]),
    "half a number": (SERVER, "keepalive:tcp:1:interval=1.5", ["interval is 1.5", "whole"]),
    "none of it": (SERVER, "keepalive:tcp:1:idle=0", ["idle is 0", "1 or more"]),
    "not even that": (SERVER, "keepalive:tcp:1:idle=nan", ["idle is nan", "whole"]),
    "no end of it": (SERVER, "keepalive:tcp:1:idle=1e999", ["idle is inf", "whole"]),
    "no time": (SERVER, "keepalive:tcp:1:userTimeout=-1", ["userTimeout is -1", "above 0"]),
    "no bound": (CLIENT, "heartbeat:tcp:h:1:within=x", ["within('x')", "at least 0.2"]),
    "too short a bound": (CLIENT, "heartbeat:tcp:h:1:within=0.1", ["within(0.1)", "at least 0.2"]),
    "no close": (CLIENT, "heartbeat:tcp:h:1:closeTimeout=0", ["closeTimeout is 0", "above 0"]),
    "the same twice": (
        CLIENT,
        "heartbeat:tcp:h:1:within=8:within=9",
        ["within is given twice, as '8' and as '9'", "once"],
    ),
    "twice, listening": (SERVER, "keepalive:tcp:1:idle=8:idle=8", ["idle is given twice"]),
    "twice, quoted": (SERVER, r"keepalive:tcp\:1:idle=8:count=2:idle=9", ["idle is given twice"]),
    "twice, two prefixes": (
        CLIENT,
        "keepalive:heartbeat:tcp:h:1:within=8:idle=5:within=9",
        ["within is given twice"],
    ),
    "twice, inside of quotes": (
        CLIENT,
        r"keepalive:heartbeat\:tcp\:h\:1\:within\=8\:within\=9",
        ["heartbeat: within is given twice"],
    ),
    "the endpoint's own twice": (
        CLIENT,
        "keepalive:tcp:h:1:timeout=8:timeout=9",
        ["timeout is given twice"],
    ),
    "twice, as bytes": (SERVER, "heartbeat:tcp:1:wi\\thin=8:within=9", ["within is given twice"]),
    # What the endpoint behind the prefix says by itself is left as it is.
    "no such endpoint": (SERVER, "keepalive:tpc:1", ["Unknown endpoint type: 'tpc'"]),
    "no such port": (SERVER, "keepalive:tcp:http", ["invalid literal for int", "'http'"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong(what: str) -> None:
    """
    What is wrong is one sentence that names it and says what is allowed, and never the
    C{TypeError} of somebody else's constructor.
    """
    parse, description, parts = WRONG[what]
    with pytest.raises(ValueError) as raised:
        parse(Clock(), description)
    said = str(raised.value)
    assert [part for part in parts if part not in said] == []
    assert "\n" not in said


def test_otherErrorsPass(tmp_path: Path) -> None:
    """
    An error of the endpoint behind the prefix that is no C{TypeError} passes as it is.
    """
    with pytest.raises(FileNotFoundError):
        serverFromString(Clock(), f"keepalive:ssl:1:privateKey={tmp_path}/none.pem")


def test_typeErrorIsChained() -> None:
    """
    What somebody else's constructor has raised can still be seen.
    """
    with pytest.raises(UnknownArgument) as raised:
        clientFromString(Clock(), "keepalive:tcp:h:1:idel=5")
    assert raised.value.argument == "idel"
    assert isinstance(raised.value.__cause__, TypeError)


@pytest.mark.parametrize("word", ["keepalive", "heartbeat"])
def test_plugins(word: str) -> None:
    """
    Twisted finds one parser for each prefix, for clients and for servers.
    """
    for interface in (
        IStreamClientEndpointStringParserWithReactor,
        IStreamServerEndpointStringParser,
    ):
        [found] = [each for each in getPlugins(interface) if each.prefix == word]
        assert isinstance(found, twisted_heartbeat_plugin.Prefix)
        assert verifyObject(interface, found)


@pytest.mark.parametrize("word", ["keepalive", "heartbeat"])
def test_endpoints(word: str) -> None:
    """
    What comes of a string is an endpoint, and how it is reached inside is as for Twisted's own.
    """
    client: Any = clientFor(word, Clock(), ["tcp", "h", "7"], {})
    server: Any = serverFor(word, Clock(), ["tcp", "8"], {})
    assert verifyObject(IStreamClientEndpoint, client)
    assert verifyObject(IStreamServerEndpoint, server)
    assert client._wrappedEndpoint._port == 7
    assert server._wrappedEndpoint._port == 8


def test_heartbeatSettings() -> None:
    """
    The arguments of C{heartbeat:} are the settings of its links; without any they are the
    package's, and a slow peer is no stalled one.
    """
    settings: Any = clientFor("heartbeat", Clock(), ["tcp", "h", "7"], {})
    config = settings._wrap(KeptFactory()).linkConfig
    assert config.heartbeat == Heartbeat()
    assert config.limits == Limits(sendStall=None)
    given: Any = serverFor(
        "heartbeat", Clock(), ["tcp", "7"], {"within": "8", "closeTimeout": "2.5"}
    )
    config = given._wrap(KeptFactory()).linkConfig
    assert config.heartbeat == Heartbeat.within(8)
    assert config.limits.closeTimeout == 2.5
    assert config.name == "heartbeat:tcp:7"


# keepalive: itself.


def test_nothingBetween() -> None:
    """
    With C{keepalive:} a factory's protocols are its own, and nothing is left on them.
    """

    @implementer(IProtocolNegotiationFactory)
    class Negotiating(KeptFactory):
        def acceptableProtocols(self) -> list[bytes]:
            return [b"h2"]

    inner = Negotiating()
    transports: list[Any] = []
    factory: Any = KeepAliveFactory(inner, transports.append)
    assert IProtocolNegotiationFactory.providedBy(factory)
    assert factory.acceptableProtocols() == [b"h2"]
    assert "Negotiating" in repr(factory)
    protocol = factory.buildProtocol(PEER)
    assert protocol is inner.built[0]
    transport = FakeTransport(Clock(), protocol)
    protocol.makeConnection(transport)
    assert transports == [transport]
    assert "makeConnection" not in vars(protocol)


class Switch(Kept):
    """
    Forwards the attributes that are set to another protocol.
    """

    def __init__(self) -> None:
        vars(self).update(inner=Kept())

    def __setattr__(self, name: str, value: object) -> None:
        if name == "transport":
            object.__setattr__(self, name, value)
        else:
            setattr(self.inner, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Slotted:
    """
    Has no place for attributes.
    """

    __slots__ = ("connected", "heard", "transport")

    def __init__(self) -> None:
        self.connected: list[Any] = []
        self.heard: list[bytes] = []

    def makeConnection(self, transport: Any) -> None:
        """
        See C{IProtocol}.
        """
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """
        See C{IProtocol}.
        """
        self.connected.append(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.heard.append(data)

    def connectionLost(self, reason: object) -> None:
        """
        See C{IProtocol}.
        """


class Computed(Kept):
    """
    Has a C{makeConnection} that can not be replaced on the instance.
    """

    @property
    def makeConnection(self) -> Any:
        """
        See C{IProtocol}.
        """
        return super().makeConnection


class Own(Kept):
    """
    Has a C{makeConnection} of the instance's own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transports: list[Any] = []
        self.makeConnection = self.own  # type: ignore[method-assign]

    def own(self, transport: Any) -> None:
        """
        In its place.
        """
        self.transports.append(transport)
        Kept.makeConnection(self, transport)


@pytest.mark.parametrize("way", ["makeConnection", "connectionMade"])
@pytest.mark.parametrize("kind", [Kept, Switch, Slotted, Computed, Own])
def test_setOnEveryProtocol(kind: Any, way: str) -> None:
    """
    The options are set once, after the protocol was told, whatever the protocol does with its
    attributes, and whichever method the transport calls; nothing is left on the protocol.
    """
    built: list[Any] = []

    class Making(Factory):
        def buildProtocol(self, addr: object) -> Any:
            built.append(kind())
            return built[-1]

    applied: list[Any] = []
    factory: Any = KeepAliveFactory(Making(), applied.append)
    protocol = factory.buildProtocol(PEER)
    assert protocol == built[0]
    assert isinstance(protocol, kind)
    transport = FakeTransport(Clock(), protocol)
    if way == "makeConnection":
        protocol.makeConnection(transport)
    else:
        protocol.transport = transport
        protocol.connectionMade()
    assert applied == [transport]
    assert built[0].transport is transport
    transport.deliver(b"data")
    assert b"data" in (getattr(built[0], "received", b""), *getattr(built[0], "heard", ()))
    left = vars(built[0]) if kind is not Slotted else {}
    assert "connectionMade" not in left
    assert ("makeConnection" in left) == (kind is Own)
    transport.lose()


def test_noProtocol() -> None:
    """
    A factory that wants no connection gets none.
    """

    class Refusing(Factory):
        def buildProtocol(self, addr: object) -> None:
            return None

    assert KeepAliveFactory(Refusing(), lambda transport: None).buildProtocol(PEER) is None


def test_sameProtocolTwice() -> None:
    """
    A protocol that is built for two connections, as by C{connectProtocol} for a name with two
    addresses, sets the options on each.
    """
    protocol = Kept()

    class One(Factory):
        def buildProtocol(self, addr: object) -> Any:
            return protocol

    transports: list[Any] = []
    factory = KeepAliveFactory(One(), transports.append)
    factory.buildProtocol(PEER)
    factory.buildProtocol(PEER)
    first = FakeTransport(Clock(), protocol)
    protocol.makeConnection(first)
    assert set(map(id, transports)) == {id(first)}
    assert "makeConnection" not in vars(protocol)
    factory.buildProtocol(PEER)
    second = FakeTransport(Clock(), protocol)
    protocol.makeConnection(second)
    assert transports[-1] is second


HELD = {
    "TCP_KEEPIDLE": 41,
    "TCP_KEEPINTVL": 7,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 20500,
}
OPTIONS = "idle=41:interval=7:count=4:userTimeout=20.5"
linux = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="reads back Linux's names of the options"
)


def held(transport: Any) -> dict[str, int]:
    """
    What the kernel holds for a transport; all of it, or nothing where keepalive is off.
    """
    sock = realSocket(transport)
    assert sock is not None
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        return {}
    return {name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in HELD}


async def pairOf(
    loopback: Loopback, server: str, client: Callable[[int], str], hello: bytes = b"hello"
) -> tuple[Any, Any]:
    """
    Listen, connect, and have the client say something.

    @return: what was accepted and what was connected.
    """
    from twisted.internet import reactor

    accepting, connecting = Peers(), Peers()
    port = await serverFromString(reactor, server).listen(accepting)
    loopback.atEnd(port.stopListening)
    number = getattr(port.getHost(), "port", 0)
    endpoint = clientFromString(reactor, client(number))
    here = await within(endpoint.connect(connecting))
    loopback.atEnd(here.transport.abortConnection)
    here.transport.write(hello)
    there = await within(accepting.accepted.get())
    await within(there.heard.get())
    return there, here


PLACES = {
    "tcp": ("keepalive:tcp:0:interface=127.0.0.1:{o}", "keepalive:tcp:127.0.0.1:{n}:{o}"),
    "quoted": (
        r"keepalive:tcp\:0\:interface=127.0.0.1:{o}",
        r"keepalive:tcp\:127.0.0.1\:{n}\:timeout=5:{o}",
    ),
    "ssl and tls": (
        "keepalive:ssl:0:interface=127.0.0.1:privateKey={c.pem}:{o}",
        r"keepalive:tls:peer.example:{n}:trustRoots={c.roots}:endpoint=tcp\:127.0.0.1\:{n}:{o}",
    ),
    "inside of tls": (
        "ssl:0:interface=127.0.0.1:privateKey={c.pem}",
        r"tls:peer.example:{n}:trustRoots={c.roots}:endpoint=keepalive\:tcp\:127.0.0.1\:{n}\:{q}",
    ),
    "around haproxy": (
        "keepalive:haproxy:tcp:0:interface=127.0.0.1:{o}",
        "keepalive:tcp:127.0.0.1:{n}:{o}",
    ),
    "inside of haproxy": (
        "haproxy:keepalive:tcp:0:interface=127.0.0.1:{o}",
        "keepalive:tcp:127.0.0.1:{n}:{o}",
    ),
    "around heartbeat": (
        "keepalive:heartbeat:tcp:0:interface=127.0.0.1:{o}",
        "keepalive:heartbeat:tcp:127.0.0.1:{n}:{o}",
    ),
    "inside of heartbeat": (
        "heartbeat:keepalive:tcp:0:interface=127.0.0.1:{o}",
        "heartbeat:keepalive:tcp:127.0.0.1:{n}:{o}",
    ),
}


@linux
@pytest.mark.parametrize("where", PLACES)
@pytest_twisted.ensureDeferred
async def test_setOnEveryConnection(where: str, plain: Loopback, tmp_path: Path) -> None:
    """
    C{keepalive:} sets what it says, at both ends, wherever it stands in a stack of endpoints.
    """
    certificates = Certificates(tmp_path)
    quoted = OPTIONS.replace(":", "\\:")

    def described(template: str, number: int = 0) -> str:
        return template.format(o=OPTIONS, q=quoted, n=number, c=certificates)

    server, client = PLACES[where]
    proxied = b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n"
    hello = (proxied if "haproxy" in where else b"") + b"hello"
    there, here = await pairOf(
        plain, described(server), lambda number: described(client, number), hello
    )
    assert held(here.transport) == HELD
    if where != "inside of tls":
        assert held(there.transport) == HELD


@pytest_twisted.ensureDeferred
async def test_heartbeatBehindABalancer(plain: Loopback) -> None:
    """
    With C{heartbeat:} around C{haproxy:} the balancer's header comes first and the frames after it,
    and the program sees the address that the balancer tells.
    """
    from twisted.internet import reactor

    peers = Peers()
    listening = serverFromString(reactor, "heartbeat:haproxy:tcp:0:interface=127.0.0.1")
    port = await listening.listen(peers)
    plain.atEnd(port.stopListening)
    balancer = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
    client: Any = await within(balancer.connect(Factory.forProtocol(Kept)))
    plain.atEnd(client.transport.abortConnection)
    frames = wire.encode(wire.Hello()) + wire.encode(wire.Data(b"hello"))
    client.transport.write(b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n" + frames)
    peer = await within(peers.accepted.get())
    assert await within(peer.heard.get()) == b"hello"
    assert peer.transport.getPeer().host == "192.0.2.9"


@linux
@pytest_twisted.ensureDeferred
async def test_winsOverTheProgram(plain: Loopback) -> None:
    """
    What the endpoint's string says holds over the defaults of the service that connects it.
    """
    from twisted.internet import reactor

    peers, hooks = Peers(), Recorder()
    number = plain.listen(peers)
    endpoint = clientFromString(reactor, f"keepalive:tcp:127.0.0.1:{number}:{OPTIONS}")
    connected = hooks.next("connected")
    plain.service(endpoint, KeptFactory(), hooks=hooks, keepAlive=KeepAlive(idle=9))
    link = await within(connected)
    assert held(link.protocol.transport) == HELD


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no UNIX sockets here")
@pytest_twisted.ensureDeferred
async def test_saysOnceThatThereIsNone(plain: Loopback, tmp_path: Path) -> None:
    """
    On UNIX sockets C{keepalive:} does nothing, and each endpoint says so once.
    """
    from twisted.internet import reactor

    said: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if "endpoint" in event:
            said.append(f"{event['endpoint']}: {event['reason']}")

    globalLogPublisher.addObserver(observe)
    plain.atEnd(lambda: globalLogPublisher.removeObserver(observe))
    place = f"unix:{tmp_path}/s"
    peers = Peers()
    port = await serverFromString(reactor, f"keepalive:{place}").listen(peers)
    plain.atEnd(port.stopListening)
    endpoint = clientFromString(reactor, f"keepalive:{place}:idle=5")
    for _ in range(3):
        client: Any = await within(endpoint.connect(Factory.forProtocol(Kept)))
        plain.atEnd(client.transport.abortConnection)
        await within(peers.accepted.get())
    assert len(said) == 2
    assert {line.partition(": ")[0] for line in said} == {f"keepalive:{place}"}
    assert all(line.endswith("only a TCP socket has it.") for line in said)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Kept):
    """
    Tells when the other half is closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readClosed: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        """
        Tell.
        """
        self.readClosed.callback(None)

    def writeConnectionLost(self) -> None:
        """
        Nothing follows.
        """


@pytest_twisted.ensureDeferred
async def test_halfCloseBehindKeepAlive(plain: Loopback) -> None:
    """
    Under a service, and behind C{keepalive:}, a protocol that can be half-closed still can.
    """
    from twisted.internet import reactor

    peers, hooks, factory = Peers(), Recorder(), KeptFactory()
    factory.protocol = HalfCloseable
    number = plain.listen(peers)
    plain.service(
        clientFromString(reactor, f"keepalive:tcp:127.0.0.1:{number}"), factory, hooks=hooks
    )
    connected = hooks.next("connected")
    peer = await within(peers.accepted.get())
    await within(connected)
    peer.transport.loseWriteConnection()
    await within(factory.built[0].readClosed)
    assert hooks.told("disconnected") == []
