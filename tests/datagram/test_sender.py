# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The sender, in virtual time, with real monitors: when it sends, whom it watches, where it goes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from twisted_heartbeat import (
    ClosedHere,
    DatagramHooks,
    DatagramLimits,
    Heartbeat,
    PeerClosed,
    PeerSilent,
    UDPHeartbeatMonitor,
    UDPHeartbeatSender,
)
from twisted_heartbeat.core.causes import GoodbyeCode
from twisted_heartbeat.core.datagram.packet import ACKNOWLEDGE, Key, Type, decode, encode
from twisted_heartbeat.core.datagram.sendersession import ANSWERS_PER_SECOND
from twisted_heartbeat.datagram.uplink import RESOLVE_TIMEOUT

from ..support.datagrams import SECRET
from ..support.virtualudp import Host, Internet
from .test_monitor import Recorder

BOUND = 6.0
PLACES = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
PORT = 8471


class Net:
    """
    A sender, and monitors at C{PLACES}.

    @ivar down: the addresses whose network is cut.
    """

    def __init__(self, monitors: int = 1) -> None:
        self.internet = Internet()
        self.internet.fate = self.fate
        self.down: set[str] = set()
        self.watchers: list[UDPHeartbeatMonitor] = []
        self.told: list[Recorder] = []
        self.home = Host(self.internet, "198.51.100.7")
        self.hooks = Recorder()
        self.sender: UDPHeartbeatSender | None = None
        for place in PLACES[:monitors]:
            self.addMonitor(place)

    def addMonitor(self, place: str, **settings: Any) -> UDPHeartbeatMonitor:
        """
        Start a monitor.
        """
        self.told.append(Recorder())
        settings = {"port": PORT, "hooks": self.told[-1], **settings}
        watcher = UDPHeartbeatMonitor(
            {"pump": SECRET}, reactor=Host(self.internet, place), **settings
        )
        watcher.startService()
        self.watchers.append(watcher)
        return watcher

    def send(self, monitors: Any = None, **settings: Any) -> UDPHeartbeatSender:
        """
        Start the sender.
        """
        usual: dict[str, Any] = {
            "name": "pump",
            "key": SECRET,
            "heartbeat": Heartbeat.within(BOUND),
            "every": 1.0,
            "hooks": self.hooks,
            "random": random.Random(3).random,
            "reactor": self.home,
        }
        places = [(place, PORT) for place in PLACES[: len(self.watchers)]]
        self.sender = UDPHeartbeatSender(monitors or places, **usual | settings)
        self.sender.startService()
        return self.sender

    def fate(self, data: bytes, source: Any, target: Any) -> list[float]:
        """
        Nothing passes from or to what is down.
        """
        return [] if {source[0], target[0]} & self.down else [0.01]

    def sent(self, place: str | None = None, kind: Type = Type.HEARTBEAT) -> list[float]:
        """
        When the sender sent datagrams of this type.
        """
        return [
            at
            for at, source, target, data in self.internet.carried
            if source[0] == self.home.address
            and (place is None or target[0] == place)
            and decode(data).type == kind
        ]

    def close(self) -> None:
        """
        Stop all, and find nothing left.
        """
        if self.sender is not None and self.sender.running:
            self.sender.stopService()
        for watcher in self.watchers:
            watcher.stopService()
        self.internet.advance(0.1)
        assert self.internet.clock.getDelayedCalls() == []
        assert self.internet.ports == {}


@pytest.fixture
def net() -> Iterator[Net]:
    """
    A sender's network with one monitor.
    """
    made = Net()
    yield made
    made.close()


@pytest.fixture
def three() -> Iterator[Net]:
    """
    A sender's network with three monitors.
    """
    made = Net(3)
    yield made
    made.close()


def test_aLife(net: Net) -> None:
    """
    The sender is challenged, answers, is alive at its monitor, and watches that, until it stops and
    says goodbye.
    """
    sender = net.send()
    net.internet.advance(20.0)
    assert net.told[0].names == ["connected"]
    assert net.hooks.names == ["connected"]
    monitor = sender.current
    assert (monitor.carrier, monitor.source, monitor.name) == ("udp", "pump", "192.0.2.1:8471")
    assert (monitor.state, monitor.isAuthenticated, monitor.watch) == ("alive", False, "datagrams")
    assert (monitor.bound, monitor.generation, monitor.loss) == (BOUND, 1, 0.0)
    assert monitor.rtt == pytest.approx(0.02)
    assert monitor.peer.host == "192.0.2.1"
    assert monitor.silence <= 1.3
    sender.stopService()
    net.internet.advance(0.1)
    assert net.told[0].names == ["connected", "disconnected"]
    cause = net.told[0].told[-1][1]
    assert (type(cause), cause.goodbyeCode) == (PeerClosed, GoodbyeCode.CLOSING)


@pytest.mark.parametrize("isSilent", [False, True])
def test_stopEndsTheMonitors(three: Net, isSilent: bool) -> None:
    """
    A sender that stops tells the end of each monitor that was alive, once; it can start again.
    """
    sender = three.send(all=True)
    three.internet.advance(5.0)
    if isSilent:
        three.down.add(PLACES[1])
        three.internet.advance(BOUND + 1.0)
    before = len(three.hooks.told)
    sender.stopService()
    sender.stopService()
    causes = [cause for name, cause in three.hooks.told[before:] if name == "disconnected"]
    assert [(type(cause), str(cause)) for cause in causes] == [
        (ClosedHere, "the sender has stopped")
    ] * len(three.hooks.told[before:])
    assert len(causes) == (2 if isSilent else 3)
    assert {monitor.state for monitor in sender.monitors} == {"gone"}
    three.down.clear()
    sender.startService()
    three.internet.advance(5.0)
    assert three.hooks.names[-3:] == ["connected"] * 3


def test_startedAgain(net: Net) -> None:
    """
    A sender that is started again takes the acknowledgements of its new session at once, although
    the session before had higher numbers.
    """
    sender = net.send()
    net.internet.advance(20.0)
    sender.stopService()
    sender.startService()
    net.internet.advance(2.0)
    assert net.hooks.names == ["connected", "disconnected", "connected"]
    assert not sender.current.unanswered


def test_hookThatStops(net: Net) -> None:
    """
    What is read after a hook has stopped the service brings nothing back.
    """
    sender = net.send()
    net.internet.advance(5.0)
    net.down.add(PLACES[0])
    net.internet.advance(1.5)
    sender.stopService()
    assert sender._session.latest is not None
    late = sender._session.latest.reply(Type.ACKNOWLEDGEMENT)
    sender.datagramReceived(encode(late, Key(SECRET)), (PLACES[0], PORT))
    assert net.hooks.names == ["connected", "disconnected"]
    assert sender.current.state == "gone"


@pytest.mark.parametrize("told", ["connected", "disconnected", "reading"])
def test_stopFromWithin(three: Net, told: str) -> None:
    """
    A sender that is stopped by a hook or by the reading of its next heartbeat sends nothing more,
    and leaves no socket and no timer, whatever it would have done next: send more often, go on to
    the next monitor, send the heartbeat.
    """
    stopped: list[float] = []

    def stop(*_: Any) -> None:
        stopped.append(three.internet.clock.seconds())
        sender.stopService()

    class Stopping(DatagramHooks):
        pass

    hooks = Stopping()
    settings: dict[str, Any] = {"hooks": hooks}
    if told == "reading":
        settings["reading"] = stop
    else:
        setattr(hooks, told, stop)
    if told == "connected":
        three.watchers[0].stopService()
        three.addMonitor(PLACES[0], limits=DatagramLimits(maxBound=30.0))
        settings |= {"every": None, "heartbeat": Heartbeat.within(600.0)}
    sender = three.send(**settings)
    if told == "disconnected":
        three.internet.advance(5.0)
        three.down.add(PLACES[0])
    three.internet.advance(60.0, step=0.05)
    assert len(stopped) == 1
    assert [at for at, source, _, _ in three.internet.carried
            if source[0] == three.home.address and at > stopped[0]] == []  # fmt: skip
    assert [port for port in three.internet.ports.values() if port.host is three.home] == []


@pytest.mark.parametrize("watch", [True, False])
def test_flags(net: Net, watch: bool) -> None:
    """
    The heartbeats and answers of a sender that watches ask for an acknowledgement; the flags of a
    goodbye are its code alone.
    """
    sender = net.send(watch=watch)
    net.internet.advance(5.0)
    sender.stopService()
    own = [decode(data) for _, source, _, data in net.internet.carried if source[0] not in PLACES]
    asks = ACKNOWLEDGE if watch else 0
    assert {(packet.type, packet.flags) for packet in own} == {
        (Type.HEARTBEAT, asks), (Type.ANSWER, asks), (Type.GOODBYE, 0)}  # fmt: skip


def test_sendsOnTheGrid(net: Net) -> None:
    """
    Heartbeats leave once in a period, up to a quarter early, without drift; what each says of the
    next one holds.
    """
    net.send()
    net.internet.advance(300.0)
    times = net.sent()
    assert len(times) in (300, 301)
    origin = 0.25
    # The wheel's slots are 1/64 s wide, and the test's steps 10 ms.
    assert all(-0.25 <= at - origin - n <= 0.03 for n, at in enumerate(times))
    heartbeats = [decode(data) for _, _, _, data in net.internet.carried]
    heartbeats = [packet for packet in heartbeats if packet.type == Type.HEARTBEAT]
    for packet, following in zip(heartbeats, heartbeats[1:], strict=False):
        assert following.sent <= packet.sent + packet.interval + 30


def test_atMostOneInThreeSeconds(net: Net) -> None:
    """
    RFC 8085: unless the user asks for more, there is one heartbeat in three seconds.
    """
    net.send(every=None, heartbeat=Heartbeat.within(12.0))
    net.internet.advance(300.0, step=0.05)
    assert len(net.sent()) in (100, 101)


def test_readingIsSent(net: Net, loggedErrors: Any) -> None:
    """
    Each heartbeat carries a reading; one that fails or is too long costs the reading alone.
    """
    readings: Iterator[Any] = iter([b"1", b"2", ValueError("broken"), None, bytes(513), b"6"])

    def reading() -> bytes | None:
        found = next(readings, b"7")
        if isinstance(found, Exception):
            raise found
        return found

    net.send(reading=reading)
    net.internet.advance(10.0)
    assert net.told[0].readings[:4] == [b"1", b"2", b"6", b"7"]
    assert net.told[0].names == ["connected"]
    assert len(loggedErrors.flush(ValueError)) == 2


def test_readingThatAlwaysFails(net: Net, loggedErrors: Any) -> None:
    """
    The log tells of a broken sensor once in a minute, and not with each heartbeat.
    """

    def reading() -> bytes:
        raise OSError("broken")

    net.send(reading=reading)
    net.internet.advance(58.0)
    assert len(net.sent()) >= 50
    assert len(loggedErrors.flush(OSError)) == 1
    net.internet.advance(60.0)
    assert len(loggedErrors.flush(OSError)) == 1


def test_monitorFallsSilent(net: Net) -> None:
    """
    A monitor that acknowledges nothing is suspected, then found dead at the bound; the sender goes
    on sending, and hears it again.
    """
    sender = net.send()
    net.internet.advance(10.0)
    last = max(at for at, source, _, _ in net.internet.carried if source[0] == PLACES[0]) + 0.01
    net.down.add(PLACES[0])
    while "disconnected" not in net.hooks.names:
        net.internet.advance(0.01)
        assert net.internet.clock.seconds() < 30
    assert BOUND <= net.internet.clock.seconds() - last <= BOUND + 0.05
    assert net.hooks.names == ["connected", "suspected", "disconnected"]
    assert type(net.hooks.told[-1][1]) is PeerSilent
    assert sender.current.state == "gone"
    net.down.clear()
    net.internet.advance(3.0)
    assert net.hooks.names[-1] == "connected"
    assert sender.current.generation == 2


def test_restartedMonitor(net: Net) -> None:
    """
    A monitor that restarts knows the sender again after one exchange.
    """
    net.send()
    net.internet.advance(10.0)
    net.watchers[0].stopService()
    net.internet.advance(2.0)
    net.addMonitor(PLACES[0])
    net.internet.advance(1.5)
    assert net.told[1].names == ["connected"]
    assert net.hooks.names == ["connected"]


def test_failoverAndBack(three: Net) -> None:
    """
    When the first monitor falls silent the sender moves to the next within the bound, and to the
    third when that does; when the first is well again, it returns, and says so to the one it
    leaves.
    """
    sender = three.send()
    three.internet.advance(10.0)
    assert three.sent(PLACES[1]) == []
    three.down.add(PLACES[0])
    three.internet.advance(BOUND + 1.5)
    assert sender.current.host == PLACES[1]
    three.internet.advance(2.0)
    assert three.told[1].names == ["connected"]
    three.down.add(PLACES[1])
    three.internet.advance(BOUND + 2.5)
    assert sender.current.host == PLACES[2]
    assert three.told[2].names == ["connected"]
    three.down.clear()
    three.internet.advance(5.0)
    assert sender.current.host == PLACES[0]
    cause = three.told[2].told[-1][1]
    assert (type(cause), cause.goodbyeCode) == (PeerClosed, GoodbyeCode.MOVED)
    ends = [cause for name, cause in three.hooks.told if name == "disconnected"]
    assert [type(cause) for cause in ends] == [PeerSilent, PeerSilent, ClosedHere]
    before = len(three.sent(PLACES[2]))
    three.internet.advance(20.0)
    assert len(three.sent(PLACES[2])) == before
    assert three.watchers[0].peers["pump"].lost == 0


@pytest.mark.parametrize("isSilent", [False, True])
def test_copiedGoodbyeEndsNothing(three: Net, isSilent: bool) -> None:
    """
    Promise 21: somebody who copies the goodbyes to the monitors that are left, and is quicker than
    the sender, cannot end the session at the first monitor, when that is well again.
    """

    def copy(data: bytes, source: Any, target: Any) -> list[float]:
        if decode(data).type == Type.GOODBYE and PLACES[0] not in three.down:
            three.internet.deliver(data, ("198.51.100.66", 6), (PLACES[0], PORT))
        return three.fate(data, source, target)

    three.internet.fate = copy
    sender = three.send()
    three.internet.advance(5.0)
    three.down.add(PLACES[0])
    three.internet.advance(2 * BOUND)
    assert sender.current.host == PLACES[1]
    if isSilent:
        # The second falls silent when the first has acknowledged less than three heartbeats.
        three.down.add(PLACES[1])
        three.internet.advance(BOUND - 1.0)
    before = list(three.told[0].names)
    three.down.discard(PLACES[0])
    three.internet.advance(2 * BOUND)
    assert sender.current.host == PLACES[0]
    assert three.told[0].names == [*before, "connected"]
    assert three.told[1].names[-1] == "disconnected"
    assert len(three.sent(PLACES[1], Type.GOODBYE)) == 2


def test_stopSaysGoodbyeToTheMonitorThatIsLeft(three: Net) -> None:
    """
    A sender that ends just after its return says goodbye to both monitors.
    """
    sender = three.send()
    three.internet.advance(5.0)
    three.down.add(PLACES[0])
    three.internet.advance(2 * BOUND)
    three.down.clear()
    while sender.current.host != PLACES[0]:
        three.internet.advance(0.01)
    assert three.sent(PLACES[1], Type.GOODBYE) == []
    sender.stopService()
    assert len(three.sent(PLACES[1], Type.GOODBYE)) == 2
    three.internet.advance(0.1)
    assert [three.told[index].names[-1] for index in (0, 1)] == ["disconnected"] * 2


def test_backIsNotHasty(three: Net) -> None:
    """
    A first monitor that answers only now and then is not returned to.
    """
    sender = three.send()
    three.internet.advance(5.0)
    three.down.add(PLACES[0])
    three.internet.advance(BOUND + 2.0)
    for _ in range(20):
        three.down.clear()
        three.internet.advance(1.0)
        three.down.add(PLACES[0])
        three.internet.advance(2.0)
    assert sender.current.host == PLACES[1]


def test_deadFirstMonitorAtTheStart(three: Net, events: list[Any]) -> None:
    """
    A first monitor that never answers is left after one bound, and the log says so.
    """
    three.down.add(PLACES[0])
    sender = three.send()
    three.internet.advance(BOUND + 2.5)
    assert sender.current.host == PLACES[1]
    assert three.hooks.names == ["connected"]
    [warning] = [event for event in events if "does not answer" in event.get("log_format", "")]
    assert warning["error"].startswith(f"{PLACES[0]}:{PORT}: nothing acknowledged for 6.0")


def test_nameThatIsNotFound(net: Net, events: list[Any]) -> None:
    """
    The log says which monitor's name has led nowhere.
    """
    net.send([("hub.example", PORT)])
    net.internet.advance(BOUND + 2.5)
    [warning] = [event for event in events if "does not answer" in event.get("log_format", "")]
    assert warning["error"] == f"hub.example:{PORT}: no address was found for its name"


def test_all(three: Net) -> None:
    """
    With C{all=True} each heartbeat goes to all monitors, and each is watched by itself.
    """
    three.send(all=True)
    three.internet.advance(10.0)
    assert [told.names for told in three.told] == [["connected"]] * 3
    three.down.add(PLACES[1])
    three.internet.advance(BOUND + 1.0)
    assert three.hooks.names == ["connected"] * 3 + ["suspected", "disconnected"]
    assert [three.watchers[index].peers["pump"].lost for index in (0, 2)] == [0, 0]
    assert "pump" not in three.watchers[1].peers


def test_unwatched(net: Net) -> None:
    """
    A sender that does not watch asks for no acknowledgement, and answers challenges all the same.
    """
    sender = net.send(watch=False)
    net.internet.advance(10.0)
    assert net.told[0].names == ["connected"]
    assert net.hooks.names == []
    assert sender.current.watch == "none"
    types = {decode(data).type for _, source, _, data in net.internet.carried}
    assert Type.ACKNOWLEDGEMENT not in types


def test_multicast(three: Net) -> None:
    """
    Each monitor of a multicast group challenges for itself, by unicast, also one that joins later;
    what one has accepted does not help a recording at another.
    """
    three.internet.groups["239.1.2.3"] = PLACES[:2]
    three.send([("239.1.2.3", PORT)], watch=False)
    three.internet.advance(5.0)
    assert [told.names for told in three.told] == [["connected"], ["connected"], []]
    three.internet.groups["239.1.2.3"] = PLACES
    three.internet.advance(2.0)
    assert three.told[2].names == ["connected"]
    assert {place for place in PLACES if three.sent(place, Type.ANSWER)} == set(PLACES)
    assert [watcher.peers["pump"].lost for watcher in three.watchers] == [0] * 3


# Names.


def test_nameIsFoundLate(net: Net) -> None:
    """
    A name that leads nowhere at first is looked up before each heartbeat; as soon as it is found,
    the latest heartbeat is sent.
    """
    net.send([("hub.example", PORT)])
    net.internet.advance(5.0)
    assert net.sent() == []
    assert len(net.internet.lookedUp) >= 5
    net.internet.names["hub.example"] = [PLACES[0]]
    net.internet.advance(1.2)
    assert net.told[0].names == ["connected"]
    asked = len(net.internet.lookedUp)
    net.internet.advance(30.0)
    assert len(net.internet.lookedUp) == asked
    net.internet.advance(40.0)
    assert len(net.internet.lookedUp) == asked + 1


def test_nameThatLeadsNowhere(net: Net, events: list[Any]) -> None:
    """
    A name that leads nowhere is in the log from the start, once in a minute. What could not be sent
    counts neither as sent nor as lost.
    """
    sender = net.send([("hub.example", PORT)])
    net.internet.advance(59.0)
    warnings = [event for event in events if "No address" in event["log_format"]]
    assert [event["error"] for event in warnings] == [f"hub.example:{PORT}"]
    assert (sender.current.sent, sender.current.loss) == (0, 0.0)
    net.internet.names["hub.example"] = [PLACES[0]]
    net.internet.advance(5.0)
    assert sender.current.sent >= 1
    assert sender.current.loss == 0.0


def test_lookUpThatNeverEnds(net: Net) -> None:
    """
    A look-up that has not ended for a while is given up, because some of Twisted's never do: the
    name is looked up again, and found.
    """
    net.internet.names["hub.example"] = [PLACES[0]]
    net.home.unanswered = True
    net.send([("hub.example", PORT)])
    net.internet.advance(3.0)
    assert net.internet.lookedUp == ["hub.example"]
    net.home.unanswered = False
    net.internet.advance(RESOLVE_TIMEOUT)
    assert net.told[0].names == ["connected"]


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_lookUpThatRaises(net: Net, kind: type[BaseException], events: list[Any]) -> None:
    """
    A resolver that raises, for want of a thread for example, ends no sender.  The log tells it
    once in a minute, and the name is looked up before each heartbeat.
    """
    net.internet.names["hub.example"] = [PLACES[0]]
    net.home.lookUpError = kind("no thread")
    net.send([("hub.example", PORT)])
    net.internet.advance(30.0)
    [warning] = [event for event in events if "look-up" in event["log_format"]]
    assert warning["error"] == f"hub.example:{PORT}: {kind.__name__}: no thread"
    net.home.lookUpError = None
    net.internet.advance(1.2)
    assert net.told[0].names == ["connected"]


def test_nameMoves(three: Net) -> None:
    """
    A monitor whose name moves to another address is found there, without a verdict.
    """
    three.internet.names["hub.example"] = [PLACES[0]]
    sender = three.send([("hub.example", PORT)])
    three.internet.advance(10.0)
    three.down.add(PLACES[0])
    three.internet.names["hub.example"] = [PLACES[1]]
    three.internet.advance(5.0)
    assert three.told[1].names == ["connected"]
    assert "disconnected" not in three.hooks.names
    assert sender.current.peer.host == PLACES[1]


def test_nextAddressOfAName(three: Net) -> None:
    """
    Of several addresses of a name, the next is tried when one does not answer, and one that answers
    is kept, in whatever order they come.
    """
    three.internet.names["hub.example"] = PLACES[:2]
    three.down.add(PLACES[0])
    sender = three.send([("hub.example", PORT)])
    three.internet.advance(6.0)
    assert sender.current.peer.host == PLACES[1]
    three.internet.names["hub.example"] = PLACES[1::-1]
    three.internet.advance(130.0)
    assert sender.current.peer.host == PLACES[1]


# Faults.


@pytest.mark.parametrize("number", [101, 113, 1, 11])
def test_unreachableNetwork(net: Net, number: int) -> None:
    """
    An error of the network when sending ends nothing: the next heartbeat tries again.
    """
    net.home.refusal = OSError(number, "refused")
    net.send()
    net.internet.advance(10.0)
    net.home.refusal = None
    net.internet.advance(2.0)
    assert net.told[0].names == ["connected"]


def test_lostSocketIsReplaced(net: Net) -> None:
    """
    A socket that the system takes away is replaced at the next heartbeat.
    """
    net.send()
    net.internet.advance(5.0)
    [port] = [port for port in net.internet.ports.values() if port.host is net.home]
    port.lost()
    net.home.taken = True
    net.internet.advance(2.0)
    net.home.taken = False
    net.internet.advance(2.0)
    assert net.told[0].names == ["connected"]
    assert net.hooks.names == ["connected"]


def test_ownStall(net: Net) -> None:
    """
    A stall of this process is no silence of the monitor's; one heartbeat follows it at once.
    """
    net.send()
    net.internet.advance(10.0)
    before = len(net.sent())
    net.internet.clock.advance(60.0)
    assert len(net.sent()) == before + 1
    net.internet.advance(5.0)
    assert "disconnected" not in net.hooks.names


def test_shorterBoundOfTheMonitor(net: Net) -> None:
    """
    A sender whose monitor applies a shorter bound sends more often, as that needs.
    """
    net.watchers[0].stopService()
    net.addMonitor(PLACES[0], limits=DatagramLimits(maxBound=30.0))
    sender = net.send(every=None, heartbeat=Heartbeat.within(600.0))
    net.internet.advance(400.0, step=0.05)
    assert sender.period == 5.0
    assert "disconnected" not in net.told[1].names


def test_shorterPeriodHastensTheSuspicion(net: Net) -> None:
    """
    A sender that sends more often, because its monitor applies a shorter bound, suspects the
    monitor by the new period: halfway between the next acknowledgement and the verdict.
    """
    net.watchers[0].stopService()
    net.addMonitor(PLACES[0], limits=DatagramLimits(maxBound=30.0))
    sender = net.send(every=None, heartbeat=Heartbeat.within(600.0))
    net.internet.advance(27.0)
    assert sender.period == 5.0
    net.down.add(PLACES[0])
    silence = sender.current.silence
    net.internet.advance((600.0 + 5.0) / 2 - silence - 0.5, step=0.05)
    assert net.hooks.names == ["connected"]
    net.internet.advance(1.0)
    assert net.hooks.names == ["connected", "suspected"]


def test_shorterBoundThanItsPeriod(net: Net, events: list[Any]) -> None:
    """
    A sender that was told how often to send keeps to that, and says that it does not suffice.
    """
    net.watchers[0].stopService()
    net.addMonitor(PLACES[0], limits=DatagramLimits(maxBound=1.0))
    sender = net.send(every=2.0, heartbeat=Heartbeat.within(20.0))
    net.internet.advance(20.0)
    assert sender.period == 2.0
    assert sum("applies a bound" in event.get("log_format", "") for event in events) == 1


# Attacks.


def test_answersItsOwnChallengesOnly(net: Net) -> None:
    """
    A challenge of another key, session, name or of an old heartbeat is not answered, nor more than
    twenty in a second.
    """
    sender = net.send()
    net.internet.advance(10.0)
    latest = sender._session.latest
    assert latest is not None
    key, before = Key(SECRET), len(net.sent(kind=Type.ANSWER))
    port = next(port for port in net.internet.ports.values() if port.host is net.home)
    good = latest.reply(Type.CHALLENGE, cookie=5)

    def deliver(fields: dict[str, Any], signedBy: Key = key) -> int:
        changed = type(good)(**good._asdict() | fields)
        net.internet.deliver(encode(changed, signedBy), ("203.0.113.9", 9), port.address)
        return len(net.sent(kind=Type.ANSWER)) - before

    assert deliver({}, Key(b"another key of a forger")) == 0
    assert deliver({"session": good.session ^ 1}) == 0
    assert deliver({"name": b"lamp"}) == 0
    assert deliver({"keyId": 2}) == 0
    assert deliver({"sequence": good.sequence - 2}) == 0
    assert deliver({"sequence": good.sequence + 1}) == 0
    assert deliver({"type": Type.HEARTBEAT}) == 0
    assert deliver({"sequence": good.sequence - 1}) == 1
    for _ in range(100):
        deliver({})
    assert deliver({}) == ANSWERS_PER_SECOND


def test_recordedAcknowledgementsProveNothing(net: Net) -> None:
    """
    Acknowledgements of this or of an earlier session, played again, do not make a dead monitor look
    alive.
    """
    sender = net.send()
    net.internet.advance(10.0)
    sender.stopService()
    recorded = [data for _, source, _, data in net.internet.carried if source[0] == PLACES[0]]
    sender.startService()
    net.internet.advance(5.0)
    net.down.add(PLACES[0])
    recorded += [data for _, source, _, data in net.internet.carried if source[0] == PLACES[0]]
    for _ in range(40):
        net.internet.advance(0.25)
        for port in list(net.internet.ports.values()):
            if port.host is net.home:
                for data in recorded:
                    net.internet.deliver(data, (PLACES[0], PORT), port.address)
    assert sender.current.state == "gone"


def test_noise(net: Net) -> None:
    """
    Any other bytes are ignored.
    """
    sender = net.send()
    net.internet.advance(3.0)
    port = next(port for port in net.internet.ports.values() if port.host is net.home)
    draw = random.Random(1)
    for size in range(0, 800, 7):
        net.internet.deliver(draw.randbytes(size), (PLACES[0], PORT), port.address)
    net.internet.advance(3.0)
    assert sender.current.state == "alive"


def test_sessionIsDrawnAnew(net: Net) -> None:
    """
    Each start is another session.
    """
    sender = net.send()
    first = sender.session
    sender.stopService()
    sender.startService()
    assert sender.session != first


def test_longSession(net: Net) -> None:
    """
    After the last sequence number another session begins, and the monitor takes it for that.
    """
    sender = net.send()
    net.internet.advance(3.0)
    sender._session.sequence = 2**32 - 4
    first = sender.session
    net.internet.advance(8.0)
    assert sender.session != first
    assert net.told[0].names == ["connected", "disconnected", "connected"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"monitors": []}, "monitors is empty"),
        ({"name": ""}, "name is ''"),
        ({"name": "x" * 129}, "1 to 128 bytes"),
        ({"key": None}, "key is needed"),
        ({"unauthenticated": True}, "key is needed"),
        ({"key": b"short"}, "5 bytes"),
        ({"keyId": 0}, "keyId is 0"),
        ({"every": 7.0}, "raise the bound"),
        ({"allowLoss": 0.4}, "a loss of 0.4 needs 16"),
        ({"monitors": [("a", 1), ("b", 1)], "watch": False}, "watch is False"),
    ],
)
def test_wrongSettings(settings: dict[str, Any], words: str) -> None:
    """
    What cannot work is refused with a sentence that names the field.
    """
    usual: dict[str, Any] = {"monitors": ("192.0.2.1", 1), "name": "pump", "key": SECRET}
    usual |= {"heartbeat": Heartbeat.within(6.0), "every": 1.0}
    places = {**usual, **settings}.pop("monitors")
    given = {name: value for name, value in {**usual, **settings}.items() if name != "monitors"}
    with pytest.raises(ValueError, match=words):
        UDPHeartbeatSender(places, **given)


def test_unauthenticated(net: Net) -> None:
    """
    A sender without a key is heard where its name is listed.
    """
    net.watchers[0].stopService()
    watcher = net.addMonitor(PLACES[0], unauthenticated=["toy"])
    sender = net.send(name="toy", key=None, unauthenticated=True)
    net.internet.advance(3.0)
    assert not watcher.peers["toy"].isAuthenticated
    assert sender.current.state == "alive"
