# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Wrapping: any factory, on either side, is watched unchanged.
"""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any
from unittest.mock import MagicMock, Mock
from weakref import ref

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted import version
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.amp import AMP, Command, Integer
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import Interface, alsoProvides, implementer, noLongerProvides

from twisted_heartbeat import (
    Cause,
    Heartbeat,
    HeartbeatFactory,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    PeerClosed,
    PeerSilent,
)

from ..support.loopback import QUICK, Loopback, Peer, Peers, connectedPair, wait, within
from ..support.virtualnetwork import PEER, FakeTransport, Kept, KeptFactory, Recorder


def wrapped(factory: Any, **settings: Any) -> tuple[Any, FakeTransport, Clock, Recorder]:
    """
    A wrapped protocol in virtual time.
    """
    clock, hooks = Clock(), Recorder()
    watching = HeartbeatFactory(factory, clock=clock, hooks=hooks, **settings)
    protocol: Any = watching.buildProtocol(PEER)
    transport = FakeTransport(clock, protocol)
    protocol.makeConnection(transport)
    return protocol, transport, clock, hooks


def noted(name: str) -> Callable[..., None]:
    """
    A method that notes its one argument, or else its name.
    """

    def note(self: Fancy, *arguments: object) -> None:
        self.told += arguments or [name]

    return note


@implementer(
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IFileDescriptorReceiver,
    IPullProducer,
    IPushProducer,
)
class Fancy(Kept):
    """
    Provides all that a transport may ask for.
    """

    readConnectionLost = noted("readConnectionLost")
    writeConnectionLost = noted("writeConnectionLost")
    handshakeCompleted = noted("handshakeCompleted")
    fileDescriptorReceived = noted("fileDescriptorReceived")
    pauseProducing = noted("pauseProducing")
    resumeProducing = noted("resumeProducing")
    stopProducing = noted("stopProducing")

    def __init__(self) -> None:
        super().__init__()
        self.told: list[object] = []

    def logPrefix(self) -> str:
        """
        See C{ILoggingContext}.
        """
        return "a fancy prefix"


def fancyFactory() -> KeptFactory:
    """
    Makes them.
    """
    factory = KeptFactory()
    factory.protocol = Fancy
    return factory


def test_providesWhatIsWrapped() -> None:
    """
    The wrapper provides what the protocol provides, and forwards each call.
    """
    factory = fancyFactory()
    protocol, transport, _, _ = wrapped(factory)
    for interface in (
        IProtocol,
        IHalfCloseableProtocol,
        IHandshakeListener,
        ILoggingContext,
        IFileDescriptorReceiver,
        IPullProducer,
        IPushProducer,
    ):
        assert interface.providedBy(protocol), interface
    protocol.readConnectionLost()
    protocol.writeConnectionLost()
    protocol.handshakeCompleted()
    protocol.fileDescriptorReceived(5)
    protocol.pauseProducing()
    protocol.resumeProducing()
    protocol.stopProducing()
    assert factory.built[0].told == [
        "readConnectionLost",
        "writeConnectionLost",
        "handshakeCompleted",
        5,
        "pauseProducing",
        "resumeProducing",
        "stopProducing",
    ]
    assert protocol.logPrefix() == "a fancy prefix"
    transport.lose()


def test_providesNothingElse() -> None:
    """
    What the protocol does not provide the wrapper does not either, but for C{IHandshakeListener},
    which it needs itself.
    """
    protocol, transport, _, _ = wrapped(KeptFactory())
    assert not IHalfCloseableProtocol.providedBy(protocol)
    assert not IFileDescriptorReceiver.providedBy(protocol)
    assert IHandshakeListener.providedBy(protocol)
    protocol.handshakeCompleted()
    transport.lose()


def test_forwards() -> None:
    """
    Attributes and bytes go through unchanged; the protocol's transport is the real one; C{repr}
    tells what is wrapped; the end is told once.
    """
    factory = KeptFactory()
    protocol, transport, clock, hooks = wrapped(factory)
    inner = factory.built[0]
    assert inner.transport is transport
    assert protocol.losses == 0
    assert protocol.factory is factory
    transport.deliver(b"one")
    transport.deliver(b"two")
    assert inner.received == b"onetwo"
    assert "Kept" in repr(protocol)
    with pytest.raises(AttributeError, match="noSuchThing"):
        protocol.noSuchThing  # noqa: B018
    transport.lose(ConnectionLost())
    protocol.connectionLost(Failure(ConnectionDone()))
    assert inner.losses == 1
    assert inner.reason.check(ConnectionLost)
    assert hooks.names == ["connected", "disconnected"]
    assert clock.getDelayedCalls() == []


def test_settingIsForwarded() -> None:
    """
    Whoever holds the wrapper and sets something sets it on the protocol: C{prepareConnection}, and
    whoever awaits an endpoint, have nothing else.
    """
    factory = KeptFactory()
    protocol, transport, _, _ = wrapped(factory)
    protocol.name = "sensor-17"
    assert factory.built[0].name == protocol.name == "sensor-17"
    transport.lose()


@pytest.mark.parametrize("name", ["_protocol", "of", "_completed", "_link", "wrappedProtocol"])
def test_namesLeftToTheProtocol(name: str) -> None:
    """
    Any attribute but C{link} is the protocol's, private ones too: set, read and deleted through the
    wrapper.
    """
    factory = KeptFactory()
    protocol, transport, _, _ = wrapped(factory)
    setattr(protocol, name, "the program's")
    assert getattr(factory.built[0], name) == getattr(protocol, name) == "the program's"
    delattr(protocol, name)
    with pytest.raises(AttributeError):
        delattr(protocol, name)
    transport.deliver(b"x")
    assert factory.built[0].received == b"x"
    transport.lose()


def test_nameThatTwistedsProxiesHave() -> None:
    """
    C{_protocol} of the wrapper is the protocol, as of the proxies of C{ClientService}.
    """
    factory = KeptFactory()
    protocol, transport, _, _ = wrapped(factory)
    assert protocol._protocol is factory.built[0]
    transport.lose()


def test_canBeInterceptedInFront() -> None:
    """
    Whoever gets a method that the transport calls, and sets one that calls it, as factories do that
    make no wrapper, is called first; the link and the protocol hear all the same.
    """

    class Between(HeartbeatFactory):
        def buildProtocol(self, addr: object) -> Any:
            protocol: Any = super().buildProtocol(addr)
            for name in ("makeConnection", "dataReceived", "connectionLost"):
                self.intercept(protocol, name, getattr(protocol, name))
            return protocol

        def intercept(self, protocol: Any, name: str, method: Any) -> None:
            def called(argument: Any) -> None:
                calls.append(name)
                method(argument)

            setattr(protocol, name, called)

    calls: list[str] = []
    clock, hooks, factory = Clock(), Recorder(), KeptFactory()
    protocol: Any = Between(factory, clock=clock, hooks=hooks).buildProtocol(PEER)
    transport = FakeTransport(clock, protocol)
    protocol.makeConnection(transport)
    transport.deliver(b"one")
    transport.lose()
    assert calls == ["makeConnection", "dataReceived", "connectionLost"]
    assert (factory.built[0].received, factory.built[0].losses) == (b"one", 1)
    assert hooks.names == ["connected", "disconnected"]


@pytest.mark.parametrize(
    "raised", [SSL.Error([("", "", "bad")]), ZeroDivisionError("in user code")]
)
def test_errorsAreKept(raised: Exception) -> None:
    """
    What is no loss of a connection to Twisted, an error of TLS or of the protocol's own, reaches
    the protocol as it is; the hooks get its cause.
    """
    factory = KeptFactory()
    _, transport, _, hooks = wrapped(factory)
    transport.lose(raised)
    assert factory.built[0].reason.value is raised
    [cause] = hooks.told("disconnected")
    assert isinstance(cause, Cause)


def test_freedWithoutCollector() -> None:
    """
    Nothing is left of an ended link but what somebody holds, with the garbage collector off.
    """
    factory = Factory.forProtocol(Kept)
    protocol, transport, _, hooks = wrapped(factory)
    inner = ref(protocol.link.protocol)
    gc.disable()
    try:
        transport.lose()
        hooks.events.clear()
        # As Twisted's own transports do.
        transport.protocol = None
        del protocol, transport
        assert inner() is None
    finally:
        gc.enable()


def test_protocolRaisesAtTheEnd() -> None:
    """
    A C{connectionLost} that raises raises as ever; the cleanups have run all the same.
    """

    class Raising(Kept):
        def connectionLost(self, reason: object = None) -> None:  # type: ignore[override]
            raise ZeroDivisionError("in user code")

    factory = KeptFactory()
    factory.protocol = Raising
    protocol, transport, clock, hooks = wrapped(factory)
    ran: list[str] = []
    protocol.link.addCleanup(ran.append, "cleaned up")
    with pytest.raises(ZeroDivisionError):
        transport.lose()
    assert ran == ["cleaned up"]
    assert hooks.names == ["connected", "disconnected"]
    assert clock.getDelayedCalls() == []


def test_interfacesDeclaredLater() -> None:
    """
    What is declared later, on the protocol or on the wrapper, both provide; and no longer when it
    is taken back.
    """

    class IOfProtocol(Interface):
        """Declared on the protocol."""

    class IOfWrapper(Interface):
        """Declared on the wrapper."""

    wrapper, _, _, _ = wrapped(KeptFactory())
    protocol = wrapper.link.protocol
    alsoProvides(protocol, IOfProtocol)
    alsoProvides(wrapper, IOfWrapper)
    for one in (protocol, wrapper):
        assert IOfProtocol.providedBy(one)
        assert IOfWrapper.providedBy(one)
    noLongerProvides(wrapper, IOfProtocol)
    assert not IOfProtocol.providedBy(protocol)
    assert IHandshakeListener.providedBy(wrapper)
    assert not IHandshakeListener.providedBy(protocol)


class Texts(LineReceiver):
    """
    Takes text as well as bytes, as C{IRCClient} and C{XmlStream} do.
    """

    def dataReceived(self, data: str | bytes) -> Any:
        return super().dataReceived(data.encode() if isinstance(data, str) else data)

    def lineReceived(self, line: bytes) -> Any:
        return ValueError(line)


class MixedTexts(HeartbeatMixin, Texts):  # type: ignore[misc]
    """
    The same, mixed in.
    """


def wrappedTexts() -> Any:
    """
    The same, wrapped.
    """
    return HeartbeatFactory(Factory.forProtocol(Texts)).buildProtocol(PEER)


@pytest.mark.parametrize("make", [MixedTexts, wrappedTexts])
def test_textAndReturnedError(make: Callable[[], Any]) -> None:
    """
    A unit test may deliver text to a protocol that takes it, and gets what C{dataReceived} returns,
    for the first chunk and for the next.
    """
    protocol = make()
    protocol.makeConnection(StringTransport())
    for _ in range(2):
        assert isinstance(protocol.dataReceived("a line\r\n"), ValueError)


@pytest.mark.parametrize("make", [MixedTexts, wrappedTexts])
@pytest.mark.parametrize("transport", [Mock(), MagicMock(), object(), None])
def test_transportsOfUnitTests(make: Callable[[], Any], transport: object) -> None:
    """
    A unit test may connect a protocol to a mock, or to nothing.
    """
    protocol = make()
    protocol.makeConnection(transport)
    protocol.dataReceived(b"a line")
    protocol.connectionLost(Failure(ConnectionDone()))
    assert protocol.link.state == "gone"


def test_watched() -> None:
    """
    With a ping a silent peer is found; the ping gets the protocol itself.
    """
    factory = KeptFactory()
    pinged: list[Any] = []
    _, transport, clock, hooks = wrapped(
        factory, heartbeat=Heartbeat(interval=4, timeout=4), ping=pinged.append
    )
    for _ in range(66):
        clock.advance(0.125)
    assert not transport.open
    assert [type(cause) for cause in hooks.told("disconnected")] == [PeerSilent]
    assert pinged == [factory.built[0]] * 2
    assert factory.built[0].reason.check(PeerSilent, ConnectionLost)


def test_equalsItsProtocol() -> None:
    """
    The wrapper equals its protocol and hashes like it, in both directions and twice wrapped, so
    that each is found where the other was put.
    """
    factory = KeptFactory()
    protocol, transport, _, _ = wrapped(HeartbeatFactory(factory, clock=Clock()))
    [inner] = factory.built
    other = Kept()
    assert protocol == inner
    assert inner == protocol
    assert not protocol != inner
    assert not inner != protocol
    assert protocol != other
    assert other != protocol
    assert protocol != None  # noqa: E711
    assert hash(protocol) == hash(inner)
    assert {protocol: 1}[inner] == {inner: 1}[protocol] == 1
    assert {protocol, inner} == {inner}
    protocols: list[Any] = [other, inner]
    protocols.remove(protocol)
    assert protocols == [other]
    transport.lose()


def test_isOfTheClassOfItsProtocol() -> None:
    """
    The wrapper passes for an instance of the protocol's class, and a copy or a pickle of it is one
    of the protocol.
    """

    class Child(Kept):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)

    factory = KeptFactory()
    factory.protocol = Child
    protocol, transport, _, _ = wrapped(factory)
    assert isinstance(protocol, Child)
    assert isinstance(protocol, Kept)
    assert not isinstance(protocol, HeartbeatProtocol)
    assert protocol.__class__ is Child
    assert "received" in dir(protocol)
    plain, simple, _, _ = wrapped(KeptFactory())
    plain.received = b"x"
    simple.lose()
    del plain.transport
    del plain.factory
    del plain.reason
    again = pickle.loads(pickle.dumps(plain))
    assert type(again) is Kept
    assert again.received == b"x"
    assert type(copy(plain)) is Kept
    transport.lose()


def test_specialMethodsAreForwarded() -> None:
    """
    What Python looks up in the class is found, too: a protocol that can be called, iterated over or
    be empty, and one that can not.
    """

    class Special(Kept):
        def __len__(self) -> int:
            return len(self.received)

        def __iter__(self) -> Iterator[int]:
            return iter(self.received)

        def __call__(self, more: bytes) -> bytes:
            return self.received + more

        def __contains__(self, what: object) -> bool:
            return what == "what"

    factory = KeptFactory()
    factory.protocol = Special
    protocol, transport, _, _ = wrapped(factory)
    assert not protocol
    transport.deliver(b"ab")
    assert protocol
    assert len(protocol) == 2
    assert list(protocol) == [97, 98]
    assert protocol(b"c") == b"abc"
    assert "what" in protocol
    transport.lose()
    plain, transport, _, _ = wrapped(KeptFactory())
    assert plain
    with pytest.raises(TypeError):
        len(plain)
    transport.lose()


def test_methodsSetOnTheWrapper() -> None:
    """
    C{dataReceived} and C{connectionLost} that are set on the wrapper, and do not call what was
    there, do not keep the link from hearing: the peer lives, and its end is told once.
    """
    protocol, transport, clock, hooks = wrapped(
        KeptFactory(), heartbeat=Heartbeat(interval=None, timeout=2)
    )
    data: list[bytes] = []
    lost: list[Failure] = []
    protocol.dataReceived = data.append
    protocol.connectionLost = lost.append
    for _ in range(8):
        clock.advance(0.5)
        transport.deliver(b"x")
    assert hooks.names == ["connected"]
    transport.lose()
    assert hooks.names == ["connected", "disconnected"]
    assert data == [b"x"] * 8
    assert len(lost) == 1
    assert protocol.link.state == "gone"


@pytest.mark.parametrize("direct", [False, True], ids=["makeConnection", "connectionMade"])
@pytest.mark.parametrize("nested", [False, True], ids=["wrapped", "wrapped twice"])
def test_connectionMadeSetOnTheWrapper(direct: bool, nested: bool) -> None:
    """
    A C{connectionMade} that a factory sets on what its base has built is called when the protocol
    is connected, also a second one, and each may call the one before; the link is told.  When it is
    deleted, the protocol's own is back.
    """

    class Telling(Kept):
        def connectionMade(self) -> None:
            calls.append("own")

    def set(name: str) -> None:
        before = protocol.connectionMade
        protocol.connectionMade = lambda: (calls.append(name), before())

    calls: list[str] = []
    clock, hooks = Clock(), Recorder()
    factory: Any = Factory.forProtocol(Telling)
    if nested:
        factory = HeartbeatFactory(factory, clock=clock)
    watching: Any = HeartbeatFactory(factory, clock=clock, hooks=hooks)
    for deleted in (False, True):
        protocol: Any = watching.buildProtocol(PEER)
        set("first")
        set("second")
        if deleted:
            del protocol.connectionMade
        transport = FakeTransport(clock, protocol)
        if direct:
            protocol.transport = transport
            protocol.connectionMade()
        else:
            protocol.makeConnection(transport)
        assert calls == (["own"] if deleted else ["second", "first", "own"])
        assert protocol.link.isUp
        transport.lose()
        calls.clear()
    assert hooks.names == ["connected", "disconnected"] * 2


def test_connectionMadeThatCallsNothing() -> None:
    """
    A C{connectionMade} that is set on the wrapper, and does not call the protocol's, replaces it.
    """
    clock, hooks, factory = Clock(), Recorder(), KeptFactory()
    protocol: Any = HeartbeatFactory(factory, clock=clock, hooks=hooks).buildProtocol(PEER)
    calls: list[str] = []
    protocol.connectionMade = lambda: calls.append("set")
    transport = FakeTransport(clock, protocol)
    protocol.transport = transport
    protocol.connectionMade()
    assert calls == ["set"]
    assert hooks.names == ["connected"]
    transport.lose()


def test_transportThatCallsNoMakeConnection() -> None:
    """
    A transport that assigns itself, and calls C{connectionMade} alone, has its link watched, too.
    """
    clock, hooks = Clock(), Recorder()
    factory = KeptFactory()
    watching = HeartbeatFactory(
        factory, clock=clock, hooks=hooks, heartbeat=Heartbeat(interval=None, timeout=2)
    )
    protocol: Any = watching.buildProtocol(PEER)
    transport = FakeTransport(clock, protocol)
    protocol.transport = transport
    protocol.connectionMade()
    assert hooks.names == ["connected"]
    clock.pump([0.25] * 10)
    assert not transport.open
    assert factory.built[0].losses == 1


def test_mixinIsNotWrapped() -> None:
    """
    A protocol that has a place for a link is not wrapped: it gets a link with the factory's
    configuration.
    """
    protocol, transport, _, hooks = wrapped(
        Factory.forProtocol(HeartbeatProtocol), heartbeat=Heartbeat(interval=1, timeout=1)
    )
    assert type(protocol) is HeartbeatProtocol
    assert protocol.link.bound == 2
    transport.lose()
    assert hooks.names == ["connected", "disconnected"]


def test_factoryIsForwarded() -> None:
    """
    The factory provides what it wraps provides, forwards the rest, and wraps nothing where there is
    nothing.
    """

    @implementer(IProtocolNegotiationFactory)
    class Negotiating(KeptFactory):
        def acceptableProtocols(self) -> list[bytes]:
            return [b"h2", b"http/1.1"]

    inner = Negotiating()
    watching: Any = HeartbeatFactory(inner, clock=Clock())
    assert IProtocolFactory.providedBy(watching)
    assert IProtocolNegotiationFactory.providedBy(watching)
    assert watching.acceptableProtocols() == [b"h2", b"http/1.1"]
    assert watching.wrappedFactory is inner
    assert "Negotiating" in repr(watching)
    watching.doStart()
    assert inner.numPorts == 1
    watching.doStop()
    plain: Any = HeartbeatFactory(KeptFactory(), clock=Clock())
    assert not IProtocolNegotiationFactory.providedBy(plain)

    class Refusing(Factory):
        def buildProtocol(self, addr: object) -> None:
            return None

    assert HeartbeatFactory(Refusing(), clock=Clock()).buildProtocol(PEER) is None


def test_changedSettings() -> None:
    """
    Changed settings hold for the links that begin from then on, which are counted on.
    """
    clock, early, later = Clock(), Recorder(), Recorder()
    factory = HeartbeatFactory(KeptFactory(), clock=clock, hooks=early)

    def connected() -> FakeTransport:
        protocol: Any = factory.buildProtocol(PEER)
        transport = FakeTransport(clock, protocol)
        protocol.makeConnection(transport)
        return transport

    transports = [connected()]
    factory.changeSettings(hooks=later, heartbeat=None, keepAlive=None, limits=None)
    transports.append(connected())
    for transport in transports:
        transport.lose(ConnectionDone())
    assert early.names == later.names == ["connected", "disconnected"]
    assert [link.generation for link in early.told("connected")] == [1]
    assert [link.generation for link in later.told("connected")] == [2]


@pytest.mark.parametrize("kind", [HeartbeatFactory, HeartbeatServerFactory])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("wrong", ["heartbat", "clock", "generations"])
def test_wrongSettingChangesNothing(kind: Any, begun: bool, wrong: str) -> None:
    """
    A name that is no setting, or one that can not be changed, is refused at once, with nothing
    changed.
    """
    hooks, later = Recorder(), Recorder()
    factory = kind(KeptFactory(), clock=Clock(), hooks=hooks)
    if begun:
        factory.buildProtocol(PEER)
    with pytest.raises(TypeError, match=f"{wrong} cannot be changed"):
        factory.changeSettings(hooks=later, **{wrong: None})
    assert factory.linkConfig.hooks is hooks


def test_wrongSettingLeavesTheServersOwn() -> None:
    """
    With a wrong name beside them, the limits and C{admit} of a server stay as they are, too.
    """
    factory = HeartbeatServerFactory(clock=Clock())
    before = factory.serverLimits
    with pytest.raises(TypeError):
        factory.changeSettings(serverLimits=None, admit=print, pingLimit=None)
    assert (factory.serverLimits, factory.admit) == (before, None)


def test_switchedOff() -> None:
    """
    With all off, nothing is watched, no delayed call is made, and causes are named all the same.
    """
    _, transport, clock, hooks = wrapped(KeptFactory(), heartbeat=None, keepAlive=None, limits=None)
    assert clock.getDelayedCalls() == []
    transport.lose(ConnectionDone())
    assert [type(cause) for cause in hooks.told("disconnected")] == [PeerClosed]


@pytest.mark.skipif(
    (version.major, version.minor) < (25, 1),
    reason="this Twisted sets ALPN on a context that is in use, which pyOpenSSL refuses",
)
@pytest_twisted.ensureDeferred
async def test_negotiation(secured: Loopback) -> None:
    """
    ALPN works through the wrapper on the server's side and through the service on the client's.
    """

    @implementer(IProtocolNegotiationFactory)
    class Negotiating(Peers):
        def __init__(self, *names: bytes) -> None:
            super().__init__()
            self.names = names

        def acceptableProtocols(self) -> list[bytes]:
            return list(self.names)

    server = Negotiating(b"one", b"two")
    watching: Any = HeartbeatFactory(server)
    client = Negotiating(b"two")
    secured.service(secured.endpoint(secured.listen(watching)), client)
    accepted = await within(server.accepted.get())
    connected = await within(client.accepted.get())
    assert accepted.transport.negotiatedProtocol == b"two"
    assert connected.transport.negotiatedProtocol == b"two"


@pytest_twisted.ensureDeferred
async def test_handshakeIsForwarded(secured: Loopback) -> None:
    """
    A protocol that wants to know when the TLS handshake is complete is told, on either side.
    """
    hooks = Recorder()
    factory = fancyFactory()
    await connectedPair(secured, hooks, factory)
    assert factory.built[0].told == ["handshakeCompleted"]


class Ask(Command):
    """
    A question that a peer may not know.
    """

    arguments = [(b"number", Integer())]
    response = [(b"number", Integer())]


@pytest_twisted.ensureDeferred
async def test_pingOfAnotherProtocol(loopback: Loopback) -> None:
    """
    AMP, unchanged, is kept alive by a command that the peer does not even know: an error answer is
    an answer; and it gives the round-trip time.
    """
    hooks = Recorder()
    server = Factory.forProtocol(AMP)
    connected = hooks.next("connected")
    loopback.service(
        loopback.endpoint(loopback.listen(server)),
        Factory.forProtocol(AMP),
        hooks=hooks,
        heartbeat=QUICK,
        ping=lambda amp: amp.callRemote(Ask, number=1),
    )
    link = await within(connected)
    await wait(3 * QUICK.bound)
    assert hooks.names == ["connecting", "connected"]
    assert 0 < link.rtt < QUICK.bound


@pytest_twisted.ensureDeferred
async def test_wrappedServer(loopback: Loopback) -> None:
    """
    A plain server factory, wrapped: a silent client is found, and a client that speaks is not.
    """
    hooks = Recorder()

    class Echo(Peer):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.write(data)  # type: ignore[union-attr]

    server = Peers()
    watching: Any = HeartbeatFactory(
        server,
        hooks=hooks,
        heartbeat=QUICK,
        ping=lambda protocol: protocol.transport.write(b"?"),
    )
    endpoint = loopback.endpoint(loopback.listen(watching))
    echoing = Peers()
    echoing.protocol = Echo
    first = hooks.next("connected")
    loopback.service(endpoint, echoing, retryPolicy=lambda attempt: 60.0)
    lively = await within(first)
    second = hooks.next("connected")
    loopback.service(endpoint, Peers(), retryPolicy=lambda attempt: 60.0)
    silent = await within(second)
    assert isinstance(await within(silent.whenGone()), PeerSilent)
    await wait(QUICK.bound)
    assert lively.state == "alive"
    assert len(hooks.told("disconnected")) == 1


@pytest_twisted.ensureDeferred
async def test_startTLS(plain: Loopback) -> None:
    """
    A connection that becomes TLS under way stays watched: bytes are seen, a reset keeps its errno.
    """
    from ..support.loopback import clientOptions, serverOptions

    hooks = Recorder()
    factory = KeptFactory()
    service, peer = await connectedPair(plain, hooks, factory)
    link = service.link
    assert link is not None
    client = factory.built[0]
    handshaken: Deferred[None] = Deferred()
    peer.handshakeCompleted = lambda: handshaken.callback(None)
    peer.transport.startTLS(serverOptions())
    client.transport.startTLS(clientOptions(), normal=True)
    client.transport.write(b"secret")
    assert await within(peer.heard.get()) == b"secret"
    heardAt = link.peerWatch.detector.heardAt
    peer.transport.write(b"answer")
    while client.received != b"answer":
        await wait(0.01)
    assert link.peerWatch.detector.heardAt > heardAt
    ended = hooks.next("disconnected")
    peer.transport.abortConnection()
    cause = await within(ended)
    assert type(cause).__name__ == "PeerReset"


@pytest_twisted.ensureDeferred
async def test_handsItsTransportOn(loopback: Loopback) -> None:
    """
    A protocol that hands its transport to another, as a web server does for a WebSocket, is told
    no more, as ever; the link ends with its connection all the same, and only then.
    """
    hooks = Recorder()
    other = Kept()

    class Upgraded(Kept):
        def dataReceived(self, data: bytes) -> None:
            transport: Any = self.transport
            over = "wrappedProtocol" if hasattr(transport, "wrappedProtocol") else "protocol"
            setattr(transport, over, other)
            other.makeConnection(transport)

    factory = KeptFactory()
    factory.protocol = Upgraded
    _, peer = await connectedPair(loopback, hooks, factory, retryPolicy=lambda attempt: 60.0)
    ended = hooks.next("disconnected")
    peer.transport.write(b"upgrade")
    while other.transport is None:
        await wait(0.01)
    peer.transport.write(b"more")
    while other.received != b"more":
        await wait(0.01)
    assert hooks.told("disconnected") == []
    peer.transport.loseConnection()
    assert isinstance(await within(ended), PeerClosed)
    assert (factory.built[0].losses, other.losses) == (0, 1)


@pytest_twisted.ensureDeferred
async def test_limitsOfWrapped(plain: Loopback) -> None:
    """
    The limits hold for a wrapped protocol that knows nothing of them: a stalled buffer ends it.
    """
    hooks = Recorder()
    server = Peers()
    watching: Any = HeartbeatFactory(server, hooks=hooks, limits=Limits(sendStall=0.3))
    ended = hooks.next("disconnected")

    class Deaf(Protocol):
        def connectionMade(self) -> None:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    plain.service(
        plain.endpoint(plain.listen(watching)),
        Factory.forProtocol(Deaf),
        retryPolicy=lambda attempt: 60.0,
    )
    peer = await within(server.accepted.get())
    peer.transport.write(bytes(20_000_000))
    assert type(await within(ended)).__name__ == "SendStalled"
