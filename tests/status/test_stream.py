# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The stream of changes: each client is told each change, whatever is cut, slow or lost in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from twisted_heartbeat import Gap, MemoryStore
from twisted_heartbeat.status.stream import ChangeStream

from .fleet import Fleet


class Request:
    """
    A request whose client reads until it is paused.

    @ivar chunks: what was written, as it was written.
    """

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.producer: Any = None
        self.finished = self.aborted = False
        self.channel = SimpleNamespace(transport=self)
        self._ended: Deferred[None] = Deferred()

    def write(self, data: bytes) -> None:
        assert not (self.finished or self.aborted)
        self.chunks.append(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def notifyFinish(self) -> Deferred[None]:
        return self._ended

    def finish(self) -> None:
        self.finished = True

    def loseConnection(self) -> None:
        raise AssertionError("a polite close waits for the client")

    def abortConnection(self) -> None:
        self.aborted = True

    def cut(self) -> None:
        """
        Lose the client.
        """
        self._ended.errback(ConnectionError())

    def events(self, kind: str = "changes") -> list[dict[str, Any]]:
        """
        The events of a kind, each with its id.
        """
        found = []
        for block in b"".join(self.chunks).decode("ascii").split("\n\n"):
            lines = [line for line in block.split("\n") if line and not line.startswith(":")]
            fields = dict(line.split(": ", 1) for line in lines)
            if fields.get("event") == kind:
                found.append({"id": fields.get("id"), **json.loads(fields["data"])})
        return found

    def names(self) -> list[str]:
        """
        The names of the peers that have changed, in order.
        """
        return [change["name"] for event in self.events() for change in event["changes"]]

    def lastId(self) -> str:
        """
        The id that a browser would come back with.
        """
        ids = [each["id"] for kind in ("changes", "gap") for each in self.events(kind)]
        return max(ids, key=lambda each: int(each.split(".")[1]))


class Scene:
    """
    A stream of a fleet in virtual time.
    """

    def __init__(self, store: MemoryStore | None = None, maxKept: int = 1 << 20) -> None:
        self.clock = Clock()
        self.fleet = Fleet(self.clock, store=store)
        self.stream = ChangeStream(
            self.fleet.table,
            self.clock,
            maxClients=3,
            maxKept=maxKept,
            now=lambda: 1000.0 + self.clock.seconds(),
        )
        self.fleet.table.addHook(self.stream)
        self.pass_(0.01)

    def pass_(self, seconds: float) -> None:
        """
        Let time pass, in small steps.
        """
        for _ in range(max(1, round(seconds / 0.01))):
            self.clock.advance(0.01)

    def client(self, eventId: str | None = None) -> Request:
        """
        A new client.
        """
        request = Request()
        self.stream.add(request, eventId)  # type: ignore[arg-type]
        self.pass_(0.05)
        return request


@pytest.fixture
def scene() -> Scene:
    """
    A stream with a store that keeps all.
    """
    return Scene()


def test_changesOfAMomentAreOneEvent(scene: Scene) -> None:
    """
    Changes that come together are one event, with the peers as they are afterwards.
    """
    client = scene.client()
    scene.fleet.up("a", "b")
    scene.fleet.down("b")
    scene.pass_(0.3)
    [event] = client.events()
    assert [(each["name"], each["state"]) for each in event["changes"]] == [
        ("a", "up"),
        ("b", "up"),
        ("b", "down"),
    ]
    assert {each["name"]: each["state"] for each in event["peers"]} == {"a": "up", "b": "down"}
    assert event["id"] == f"{scene.stream.run}.{event['changes'][-1]['number']}"


def test_changeIsToldWithinASecond(scene: Scene) -> None:
    """
    A change is told well within a second.
    """
    client = scene.client()
    scene.fleet.up("a")
    scene.pass_(0.25)
    assert client.names() == ["a"]


def test_forgottenPeerIsNamed(scene: Scene) -> None:
    """
    A peer that the table has forgotten by the time is told as gone.
    """
    client = scene.client()
    scene.fleet.up("a")
    scene.fleet.down("a")
    scene.fleet.table.forget("a")
    scene.pass_(0.3)
    [event] = client.events()
    assert event["gone"] == ["a"]
    assert event["peers"] == []


def test_clientsShareOneEncoding(scene: Scene) -> None:
    """
    However many clients there are, a change is encoded once.
    """
    clients = [scene.client() for _ in range(3)]
    scene.fleet.up("a")
    scene.pass_(0.3)
    assert len({id(client.chunks[-1]) for client in clients}) == 1
    assert all(client.names() == ["a"] for client in clients)


def test_clientReadsOnAfterACut(scene: Scene) -> None:
    """
    A client that comes back with the id of its last event gets what it missed: no change less, and
    none twice.
    """
    first = scene.client()
    scene.fleet.up("a")
    scene.pass_(0.3)
    first.cut()
    scene.fleet.up("b", "c")
    scene.pass_(1)
    second = scene.client(first.lastId())
    scene.fleet.up("d")
    scene.pass_(0.3)
    assert first.names() + second.names() == ["a", "b", "c", "d"]
    assert second.events("gap") == []


def test_clientReadsOnFromTheTable() -> None:
    """
    What is older than the kept events is read from the table, page after page.
    """
    scene = Scene(maxKept=1)
    client = scene.client()
    scene.fleet.up("first")
    scene.pass_(0.3)
    client.cut()
    scene.client()
    names = [f"peer-{number}" for number in range(1200)]
    for name in names:
        scene.fleet.up(name)
        scene.pass_(0.01)
    scene.pass_(1)
    back = scene.client(client.lastId())
    scene.pass_(2)
    assert back.names() == names
    assert back.events("gap") == []


def test_nothingIsEncodedForNobody(scene: Scene) -> None:
    """
    Without a client no time is spent, and the stream has no timer; a later client still reads on.
    """
    client = scene.client()
    scene.fleet.up("a")
    scene.pass_(0.3)
    client.cut()
    names = [f"peer-{number}" for number in range(1500)]
    scene.fleet.up(*names)
    scene.pass_(1)
    ours = [call for call in scene.clock.getDelayedCalls() if "stream" in repr(call.func)]
    assert ours == []
    back = scene.client(client.lastId())
    scene.pass_(2)
    assert back.names() == names


def test_gapIsTold() -> None:
    """
    A client is told which changes are not kept any more, and goes on from there.
    """
    scene = Scene(MemoryStore(keep=5), maxKept=1)
    client = scene.client()
    scene.fleet.up("first")
    scene.pass_(0.3)
    client.cut()
    scene.fleet.up(*[f"peer-{number}" for number in range(1100)])
    scene.pass_(1)
    back = scene.client(client.lastId())
    scene.fleet.up("last")
    scene.pass_(1)
    [gap] = back.events("gap")
    assert gap["first"] == 2
    assert back.names()[-1] == "last"
    assert back.lastId().endswith(f".{scene.fleet.table.latest}")


def test_numbersOfAForgottenRunAreAGap(scene: Scene) -> None:
    """
    A number that this table never had says nothing: the client has to load all.
    """
    scene.fleet.up("a")
    scene.pass_(0.3)
    for eventId in ("0badcafe.999", "999", "0badcafe.1"):
        client = scene.client(eventId)
        scene.pass_(0.1)
        [gap] = client.events("gap")
        assert gap["last"] == scene.fleet.table.latest
        assert gap["id"].startswith(scene.stream.run)
        client.cut()


def test_numbersOfAStoreThatLastsGoOn() -> None:
    """
    With a store, a client reads on across a restart of the process.
    """
    store = MemoryStore()
    before = Scene(store)
    client = before.client()
    before.fleet.up("a")
    before.pass_(0.3)
    before.stream.close()
    before.fleet.stop()
    after = Scene(store)
    after.fleet.up("b")
    after.pass_(0.3)
    back = after.client(client.lastId())
    after.pass_(0.3)
    assert back.events("gap") == []
    assert "b" in back.names()


def test_changeThatACrashHasLost() -> None:
    """
    A client that was told a change, which a crash has then lost, is told of a gap: what it knows is
    not what the table has.  That holds after a second restart too, when the table has higher
    numbers.
    """
    store = MemoryStore()
    before = Scene(store)
    client = before.client()
    before.fleet.up("a")
    before.fleet.down("a")
    before.pass_(0.3)
    store.append = lambda *_: Deferred()  # type: ignore[method-assign]
    before.fleet.up("a")
    before.pass_(0.3)
    assert client.names()[-1] == "a"
    del store.append  # type: ignore[method-assign]
    for name in ("b", "c"):
        after = Scene(store)
        after.fleet.up(name)
        after.pass_(0.3)
        back = after.client(client.lastId())
        after.pass_(0.3)
        [gap] = back.events("gap")
        assert gap["last"] == after.fleet.table.latest
        after.fleet.up("d")
        after.pass_(0.3)
        assert back.names()[-1] == "d"
        after.stream.close()
        after.fleet.stop()


def test_pausedClientMissesNothing(scene: Scene) -> None:
    """
    A client whose connection takes no data is sent nothing, and afterwards all that it missed.
    """
    client = scene.client()
    client.producer.pauseProducing()
    written = len(client.chunks)
    for name in ("a", "b", "c"):
        scene.fleet.up(name)
        scene.pass_(0.3)
    assert len(client.chunks) == written
    client.producer.resumeProducing()
    assert client.names() == ["a", "b", "c"]


def test_slowClientIsCutOff(scene: Scene) -> None:
    """
    A client that takes no data for two heartbeats is cut off at once, and can come back.
    """
    client = scene.client()
    client.producer.pauseProducing()
    scene.fleet.up("a")
    scene.pass_(10)
    assert not client.aborted
    scene.pass_(11)
    assert client.aborted
    client.cut()
    assert scene.client(f"{scene.stream.run}.0").names() == ["a"]


def test_clientThatResumesIsKept(scene: Scene) -> None:
    """
    A pause between two heartbeats is no offence.
    """
    client = scene.client()
    for _ in range(6):
        client.producer.pauseProducing()
        scene.pass_(6)
        client.producer.resumeProducing()
        scene.pass_(4)
    assert not client.aborted


def test_heartbeats(scene: Scene) -> None:
    """
    Every ten seconds something comes, so that each side knows of the other: a comment, and an event
    with the time, because a page sees no comments.
    """
    client = scene.client()
    scene.pass_(35)
    times = client.events("time")
    assert [round(each["at"] - 1000) for each in times] == [0, 10, 20, 30]
    assert {each["id"] for each in times} == {None}
    assert b"".join(client.chunks).count(b": heartbeat\n") == 4


def test_stormIsToldInParts(scene: Scene) -> None:
    """
    When ten thousand peers fall in one instant, no event holds more than 400 changes, and all come
    in order within four seconds.  The peers are left out, which the changes tell well enough.
    """
    names = [f"peer-{number}" for number in range(10_000)]
    scene.fleet.up(*names)
    scene.pass_(1)
    client = scene.client()
    scene.fleet.down(*names)
    scene.pass_(4)
    assert client.names() == names
    assert max(len(event["changes"]) for event in client.events()) <= 400
    assert not any(event["peers"] for event in client.events())


def test_lostChangesAreReadFromTheTable(scene: Scene) -> None:
    """
    Changes that the table could not tell in time are no hole in the stream.
    """
    client = scene.client()
    scene.fleet.table.removeHook(scene.stream)
    scene.fleet.up("a", "b")
    scene.pass_(0.3)
    assert client.names() == []
    scene.stream.missed(Gap(1, scene.fleet.table.latest), [])
    scene.pass_(0.3)
    assert client.names() == ["a", "b"]


def test_failingStoreIsAGap(scene: Scene, loggedErrors: Any) -> None:
    """
    If the changes can not be read, the client is told of a gap, and what happens from then on.
    """
    client = scene.client()
    scene.fleet.up("a")
    scene.pass_(0.3)
    client.cut()
    scene.fleet.up(*[f"peer-{number}" for number in range(1100)])
    scene.pass_(0.3)
    table = scene.fleet.table
    table.changes = lambda since, limit: fail(OSError("disk"))  # type: ignore[method-assign]
    back = scene.client(client.lastId())
    assert len(back.events("gap")) == 1
    scene.fleet.up("b")
    scene.pass_(1)
    assert back.names()[-1] == "b"
    assert loggedErrors.flush(OSError)


def test_unusedNumbersEndTheReading(scene: Scene) -> None:
    """
    Numbers that were reserved and never used keep no client waiting.
    """
    scene.fleet.up(*[f"peer-{number}" for number in range(1100)])
    scene.pass_(0.3)
    table = scene.fleet.table
    table.changes = lambda since, limit: succeed([])  # type: ignore[method-assign]
    client = scene.client(f"{scene.stream.run}.0")
    scene.fleet.up("a")
    scene.pass_(1)
    assert client.names()[-1] == "a"


def test_clientThatLeavesWhileItsPageIsRead(scene: Scene) -> None:
    """
    A client that is gone when the store answers is sent nothing, and the next one has its turn.
    """
    scene.fleet.up(*[f"peer-{number}" for number in range(1100)])
    scene.pass_(0.3)
    table = scene.fleet.table
    waiting: list[Deferred[Any]] = []

    def read(since: int, limit: int) -> Deferred[Any]:
        waiting.append(Deferred())
        return waiting[-1]

    real = table.changes
    table.changes = read  # type: ignore[method-assign]
    first = scene.client(f"{scene.stream.run}.0")
    second = scene.client(f"{scene.stream.run}.0")
    assert len(waiting) == 1
    first.cut()
    table.changes = real  # type: ignore[method-assign]
    waiting[0].callback([])
    scene.pass_(0.5)
    assert first.names() == []
    assert len(second.names()) == 1100


def test_closeEndsTheStreams(scene: Scene) -> None:
    """
    After the end no stream is open, and no timer left.
    """
    client = scene.client()
    scene.fleet.up("a")
    scene.pass_(0.05)
    scene.stream.close()
    assert client.finished
    scene.pass_(20)
    ours = [call for call in scene.clock.getDelayedCalls() if "stream" in repr(call.func)]
    assert ours == []


def test_roomIsLimited(scene: Scene) -> None:
    """
    The stream says when it has no room.
    """
    clients = [scene.client() for _ in range(3)]
    assert scene.stream.isFull
    clients[0].cut()
    assert not scene.stream.isFull


@pytest.fixture(scope="module")
def stream() -> Iterator[ChangeStream]:
    """
    A stream that is asked only.
    """
    yield Scene().stream


@given(eventId=st.text(max_size=40))
def test_anyIdIsUnderstoodOrNot(stream: ChangeStream, eventId: str) -> None:
    """
    Whatever a client says that it has seen, it is a number of this table or nothing.
    """
    position = stream.position(eventId)
    assert position is None or position[0] == 0
