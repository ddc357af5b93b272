# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{IdlePoller}: many connections behind one descriptor, each read as the reactor would read it.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.context import get as contextOf
from twisted.python.failure import Failure
from twisted.python.log import ILogContext

from twisted_heartbeat import Heartbeat, HeartbeatProtocol, HeartbeatServerFactory, Limits
from twisted_heartbeat.batching.poller import MAX_POLLS_PER_TURN, IdlePoller, idlePollerFor
from twisted_heartbeat.core import wire

from ..support.loopback import Loopback, opened, wait, within
from ..support.virtualnetwork import Recorder

pytestmark = pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="only Linux has an epoll that can be polled"
)


class Reactor:
    """
    Is told what to poll, and what has come to its end.
    """

    def __init__(self) -> None:
        self.readers: list[Any] = []
        self.ended: list[tuple[Any, Any, bool]] = []

    def addReader(self, reader: Any) -> None:
        """
        See C{IReactorFDSet}, and so the other.
        """
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def _disconnectSelectable(self, selectable: Any, why: Any, isRead: bool) -> None:
        self.ended.append((selectable, why, isRead))


class Quiet:
    """
    A connection.

    @ivar peer: the other end of it.
    @ivar heard: what has been read.
    @ivar then: what to do after a read, and to return from it.
    """

    def __init__(self, poll: IdlePoller) -> None:
        self.poll = poll
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.heard: list[bytes] = []
        self.then: Callable[[], object] = lambda: None
        self.reason: Failure | None = None
        self.fileno = self.socket.fileno

    def read(self, context: dict[str, Any]) -> Any:
        """
        See L{readParked<twisted_heartbeat.batching.poller.readParked>}.
        """
        self.heard.append(self.socket.recv(100))
        return self.then()

    def stopReading(self) -> None:
        self.poll.remove(self)

    def connectionLost(self, reason: Failure) -> None:
        self.reason = reason


class Place:
    """
    A poll, its reactor, and some connections.
    """

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.poll = IdlePoller(self.reactor, Quiet.read)
        self.made: list[Quiet] = []

    def add(self, count: int) -> list[Quiet]:
        """
        So many connections, which it reads.
        """
        added = [Quiet(self.poll) for _ in range(count)]
        self.made += added
        for one in added:
            self.poll.add(one)
        return added

    def close(self) -> None:
        """
        End all.
        """
        for one in self.poll.parked:
            self.poll.remove(one)
        for one in self.made:
            one.socket.close()
            one.peer.close()


@pytest.fixture
def place() -> Iterator[Place]:
    """
    One that leaves no descriptor.
    """
    place = Place()
    yield place
    place.close()
    assert place.poll.fileno() == -1
    assert place.reactor.readers == []


def isReadable(descriptor: int) -> bool:
    """
    Whether a reactor would call its C{doRead}.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def test_readsWhatIsReady(place: Place) -> None:
    """
    It is readable when one of its connections is, and reads those that are.
    """
    one, two, three = place.add(3)
    assert not isReadable(place.poll.fileno())
    place.poll.doRead()
    assert one.heard == two.heard == three.heard == []
    two.peer.send(b"a pong")
    assert isReadable(place.poll.fileno())
    place.poll.doRead()
    assert (one.heard, two.heard, three.heard) == ([], [b"a pong"], [])
    assert not isReadable(place.poll.fileno())
    one.peer.send(b"1")
    three.peer.send(b"3")
    place.poll.doRead()
    assert (one.heard, two.heard, three.heard) == ([b"1"], [b"a pong"], [b"3"])
    assert place.reactor.ended == []


def test_descriptor(place: Place) -> None:
    """
    It has a descriptor, and is polled, only while it has a connection; and it can have one again.
    """
    assert place.poll.fileno() == -1
    assert place.reactor.readers == []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        first = Quiet(place.poll)
        second = Quiet(place.poll)
        place.made += [first, second]
        place.poll.add(first)
        assert place.reactor.readers == [place.poll]
        number = place.poll.fileno()
        assert number >= 0
        place.poll.add(second)
        place.poll.remove(first)
        assert place.poll.fileno() == number
        assert place.reactor.readers == [place.poll]
        place.poll.remove(second)
        assert place.poll.fileno() == -1
        assert place.reactor.readers == []
        for one in (first, second):
            one.socket.close()
            one.peer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_noneIsLeft(place: Place) -> None:
    """
    A turn to read that comes after the last has left does nothing.
    """
    [one] = place.add(1)
    one.peer.send(b"x")
    place.poll.remove(one)
    place.poll.doRead()
    assert one.heard == []


def test_removedIsNotRead(place: Place) -> None:
    """
    One that has left is not read any more, though it has something to say.
    """
    one, two = place.add(2)
    place.poll.remove(one)
    one.peer.send(b"x")
    assert not isReadable(place.poll.fileno())
    place.poll.doRead()
    assert one.heard == []


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x"), SystemExit()], ids=repr)
def test_failure(place: Place, loggedErrors: Any, error: BaseException) -> None:
    """
    One that fails at what it reads ends with that, as with the reactor; it is logged, and the
    others are read.
    """
    some = place.add(3)

    def fail() -> object:
        raise error

    some[1].then = fail
    for one in some:
        one.peer.send(b"x")
    place.poll.doRead()
    assert [one.heard for one in some] == [[b"x"]] * 3
    assert place.reactor.ended == [(some[1], error, True)]
    assert len(loggedErrors.flush(type(error))) == 1
    some[1].peer.send(b"more")
    place.poll.doRead()
    assert some[1].heard == [b"x"]


def test_failureAtTheEnd(place: Place, monkeypatch: Any, loggedErrors: Any) -> None:
    """
    What a protocol raises when its connection is lost is logged, and the others are read: it does
    not reach the reactor, which would close them all.
    """
    one, two = place.add(2)
    one.then = ConnectionLost

    def lose(selectable: Any, why: Any, isRead: bool) -> None:
        raise SystemExit

    monkeypatch.setattr(place.reactor, "_disconnectSelectable", lose)
    one.peer.send(b"x")
    two.peer.send(b"x")
    place.poll.doRead()
    assert two.heard == [b"x"]
    assert place.poll.parked == [two]
    assert len(loggedErrors.flush(SystemExit)) == 1


def test_takenOutOfTheReactor(place: Place) -> None:
    """
    C{reactor.removeAll} takes it out and does not say so: the next connection puts it back.
    """
    place.add(1)
    place.reactor.removeReader(place.poll)
    place.add(1)
    assert place.reactor.readers == [place.poll]


@pytest.mark.parametrize("why", [ConnectionDone(), ConnectionLost()])
def test_end(place: Place, why: Exception) -> None:
    """
    One that says that it has come to its end leaves, and the reactor ends it.
    """
    one, two = place.add(2)
    one.then = lambda: why
    one.peer.close()
    place.poll.doRead()
    assert place.reactor.ended == [(one, why, True)]
    assert one not in place.poll.parked
    two.peer.send(b"x")
    place.poll.doRead()
    assert two.heard == [b"x"]


def test_endWithoutARead(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One of whom the system says that it has ended, and that there is nothing to read, is done.
    """
    [one, two] = place.add(2)

    class Hup:
        """
        Says so.
        """

        def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
            """
            See C{select.epoll}.
            """
            return [(one.fileno(), select.EPOLLHUP)] if not place.reactor.ended else []

        def unregister(self, number: int) -> None:
            """
            See C{select.epoll}.
            """

    real, place.poll._epoll = place.poll._epoll, Hup()
    place.poll.doRead()
    place.poll._epoll = real
    real.unregister(one.fileno())
    assert place.reactor.ended == [(one, CONNECTION_DONE, True)]
    assert one.heard == two.heard == []


def test_leavesInTheBatch(place: Place) -> None:
    """
    One that leaves while another of the same batch is read is passed over.
    """
    one, two, three = place.add(3)

    def leave() -> None:
        for other in (one, two):
            if not other.heard:
                place.poll.remove(other)

    one.then = two.then = leave
    for each in (one, two, three):
        each.peer.send(b"x")
    place.poll.doRead()
    assert sorted([one.heard, two.heard]) == [[], [b"x"]]
    assert three.heard == [b"x"]
    assert place.reactor.ended == []


def test_allLeaveInTheBatch(place: Place) -> None:
    """
    So is the rest of a batch where the last has left, and a new first has come.
    """
    some = place.add(4)

    def leave() -> None:
        for one in place.poll.parked:
            place.poll.remove(one)

    for one in some:
        one.then = leave
        one.peer.send(b"x")
    place.poll.doRead()
    assert sorted(one.heard for one in some) == [[], [], [], [b"x"]]
    assert place.poll.fileno() == -1


def test_flood(place: Place) -> None:
    """
    However much a peer says, the reactor has its turn after some batches.
    """
    one, two = place.add(2)

    def more() -> None:
        one.peer.send(b"x")

    one.then = more
    more()
    two.peer.send(b"y")
    place.poll.doRead()
    assert one.heard == [b"x"] * MAX_POLLS_PER_TURN
    assert two.heard == [b"y"]
    assert isReadable(place.poll.fileno())


def test_all(place: Place) -> None:
    """
    Of any number that are ready in one instant, one turn reads all.
    """
    some = place.add(300)
    for one in some:
        one.peer.send(b"x")
    place.poll.doRead()
    assert all(one.heard == [b"x"] for one in some)


def test_connectionLost(place: Place, loggedErrors: Any) -> None:
    """
    Where the reactor ends it, as at a shutdown, all its connections are told, though one fails.
    """
    some = place.add(3)

    def fail(reason: Failure) -> None:
        raise ZeroDivisionError

    some[0].connectionLost = fail  # type: ignore[method-assign]
    reason = Failure(ConnectionLost())
    place.poll.connectionLost(reason)
    assert [one.reason for one in some] == [None, reason, reason]
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


def test_noDescriptorToSpare(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system has no descriptor to spare, that is said, and nothing is half done.
    """

    def fail() -> Any:
        raise OSError(24, "Too many open files")

    one = Quiet(place.poll)
    place.made.append(one)
    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", fail)
        with pytest.raises(OSError, match="Too many"):
            place.poll.add(one)
    assert place.poll.fileno() == -1
    assert place.reactor.readers == []
    place.poll.add(one)
    one.peer.send(b"x")
    place.poll.doRead()
    assert one.heard == [b"x"]


def test_noRoom(place: Place) -> None:
    """
    Where the system does not take a first connection, no descriptor is left open for it.
    """
    one = Quiet(place.poll)
    place.made.append(one)
    one.fileno = lambda: -1
    with pytest.raises((OSError, ValueError)):
        place.poll.add(one)
    number = place.poll.fileno()
    left = list(place.reactor.readers)
    if place.poll._epoll is not None:
        # So that this test alone fails for it.
        place.poll._epoll.close()
        place.poll._epoll = None
        place.reactor.readers.clear()
    assert number == -1
    assert left == []


def test_oneForEachReactor() -> None:
    """
    Each reactor that uses epoll has one of its own; no other reactor, and no clock, has one.
    """
    from twisted.internet.epollreactor import EPollReactor

    reactors: list[Any] = [object.__new__(EPollReactor) for _ in range(2)]
    polls = [idlePollerFor(reactor) for reactor in reactors]
    assert all(isinstance(poll, IdlePoller) for poll in polls)
    assert polls[0] is not polls[1]
    assert [idlePollerFor(reactor) for reactor in reactors] == polls
    assert idlePollerFor(object.__new__(SelectReactor)) is None
    assert idlePollerFor(Clock()) is None


# On real sockets.


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    """
    Real sockets.
    """
    with opened(False) as place:
        yield place


class Looking(HeartbeatProtocol):
    """
    Keeps its messages, and the log's context in which each was received.
    """

    def connectionMade(self) -> None:
        """
        See C{IProtocol}.
        """
        self.messages: list[tuple[bytes, str, bool]] = []
        super().connectionMade()

    def messageReceived(self, message: bytes) -> None:
        """
        Keep it.
        """
        transport: Any = self.transport
        context: Any = contextOf(ILogContext)
        self.messages.append(
            (message, context["system"], context["system"] == transport.logPrefix())
        )


@pytest_twisted.ensureDeferred
async def test_onARealReactor(loopback: Loopback) -> None:
    """
    Over real sockets a peer comes into a round, is pinged there, and a message of any size that it
    sends is delivered, in the context for the log that Twisted's own reading has.
    """
    from twisted.internet import reactor

    if idlePollerFor(reactor) is None:
        pytest.skip("the reactor does not use epoll")
    hooks = Recorder()
    server: Any = HeartbeatServerFactory(
        Factory.forProtocol(Looking),
        hooks=hooks,
        heartbeat=Heartbeat(interval=0.2, timeout=2.0),
        limits=Limits(sendStall=1.0),
    )
    loopback.atEnd(server.close)
    connected = hooks.next("connected")
    endpoint = loopback.endpoint(loopback.listen(server))
    client = loopback.service(endpoint, Factory.forProtocol(HeartbeatProtocol), heartbeat=None)
    link: Any = await within(connected)
    connection = link.protocol.transport

    async def untilInARound() -> None:
        for _ in range(800):
            if connection.batch is not None:
                return
            await wait(0.01)
        raise AssertionError("it never comes to rest")

    for message in (b"a message", b"x" * 388, b"x" * 10_000):
        await untilInARound()
        before = connection.bytesSent
        await wait(0.5)
        assert connection.batch is not None
        assert connection.bytesSent - before >= 2 * wire.HEADER_SIZE
        assert client.link is not None
        client.link.protocol.sendMessage(message)
        for _ in range(100):
            if link.protocol.messages:
                break
            await wait(0.01)
        [(received, system, same)] = link.protocol.messages
        link.protocol.messages.clear()
        assert received == message
        assert same and system.startswith("Looking,")
        assert connection.batch is None
    # On a busy machine the peer may be suspected, and recovers.
    assert [name for name in hooks.names if name not in ("suspected", "recovered")] == ["connected"]
    await within(server.close())
    poll = idlePollerFor(reactor)
    assert poll is not None and poll.fileno() == -1
