# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The monitor, in virtual time: what it tells, when, and what its own stalls do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.logger import LogEvent

from twisted_heartbeat import (
    Cause,
    ClosedHere,
    DatagramHooks,
    DatagramLimits,
    DatagramPeer,
    Heartbeat,
    LinkHooks,
    PeerClosed,
    PeerReset,
    PeerSilent,
    UDPHeartbeatMonitor,
)
from twisted_heartbeat.core.causes import GoodbyeCode
from twisted_heartbeat.core.datagram.packet import ACKNOWLEDGE, Type, decode
from twisted_heartbeat.datagram import monitor as monitorModule

from ..support.datagrams import SECRET, Sensor
from ..support.virtualudp import Host, Internet, Port

SENDER = ("198.51.100.7", 4000)


class Recorder(DatagramHooks):
    """
    What a monitor tells.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.readings: list[bytes] = []

    def readingReceived(self, peer: DatagramPeer, reading: bytes) -> None:
        self.readings.append(reading)

    def connected(self, peer: DatagramPeer) -> None:  # type: ignore[override]
        self.told.append(("connected", peer))

    def suspected(self, peer: DatagramPeer) -> None:  # type: ignore[override]
        self.told.append(("suspected", peer))

    def recovered(self, peer: DatagramPeer) -> None:  # type: ignore[override]
        self.told.append(("recovered", peer))

    def disconnected(self, peer: DatagramPeer, cause: Cause) -> None:  # type: ignore[override]
        self.told.append(("disconnected", cause))

    @property
    def names(self) -> list[str]:
        """
        What was told, without about whom.
        """
        return [name for name, _ in self.told]


class Scene:
    """
    A monitor on a host, and senders elsewhere.
    """

    def __init__(self, keys: Any = None, internet: Internet | None = None, **settings: Any) -> None:
        self.internet = internet or Internet()
        self.host = Host(self.internet)
        self.hooks = Recorder()
        keys = {"pump": SECRET} if keys is None else keys
        settings = {"port": 8471, "hooks": self.hooks, **settings}
        self.monitor = UDPHeartbeatMonitor(keys, reactor=self.host, **settings)
        self.monitor.startService()

    @property
    def now(self) -> float:
        """
        The time.
        """
        return self.internet.clock.seconds()

    def deliver(self, data: bytes, address: tuple[str, int] = SENDER) -> list[bytes]:
        """
        Deliver a datagram now.

        @return: the replies.
        """
        before = len(self.internet.carried)
        self.internet.deliver(data, address, (self.host.address, 8471))
        return [data for _, _, _, data in self.internet.carried[before:]]

    def meet(self, sensor: Sensor) -> DatagramPeer:
        """
        Let a sender prove that it lives.
        """
        [challenge] = self.deliver(sensor.heartbeat(self.now))
        self.deliver(sensor.answer(challenge, self.now))
        return self.monitor.peers[sensor.name]

    def beat(self, sensor: Sensor, seconds: float) -> None:
        """
        Let a sender live for so long.
        """
        for _ in range(round(seconds / sensor.interval)):
            self.internet.advance(sensor.interval)
            self.deliver(sensor.heartbeat(self.now))


class Handle:
    """
    A socket that tells the size of its buffer.
    """

    def __init__(self, port: object = None) -> None:
        pass

    def getsockopt(self, *names: int) -> int:
        return 212992

    def setsockopt(self, *values: int) -> None:
        pass


@pytest.fixture
def scene() -> Iterator[Scene]:
    """
    A monitor with one key.
    """
    made = Scene()
    yield made
    made.monitor.stopService()


def test_aLife(scene: Scene) -> None:
    """
    A peer is met, suspected, heard again, and found dead at its bound; each is told once, in order,
    and with what is known of the peer.
    """
    pump = Sensor()
    peer = scene.meet(pump)
    assert scene.hooks.told == [("connected", peer)]
    scene.beat(pump, 10.0)
    scene.internet.advance(4.0)
    assert (scene.hooks.names, peer.state) == (["connected", "suspected"], "suspected")
    scene.deliver(pump.heartbeat(scene.now))
    assert (scene.hooks.names[-1], peer.state) == ("recovered", "alive")
    silentFrom = scene.now
    scene.internet.advance(5.99)
    assert peer.state == "suspected"
    scene.internet.advance(0.06)
    assert peer.state == "gone"
    name, cause = scene.hooks.told[-1]
    assert type(cause) is PeerSilent
    assert "6.0" in str(cause) and "198.51.100.7:4000" in str(cause)
    assert "0 of 12 datagrams lost" in str(cause)
    assert 6.0 <= scene.now - silentFrom <= 6.051
    assert cause.evidence is not None and cause.evidence.simultaneousVerdicts == 1
    assert scene.monitor.peers == {}


def test_peerLooksLikeALink(scene: Scene) -> None:
    """
    A peer has the attributes by which observers of links know a link.
    """
    peer = scene.meet(Sensor())
    scene.internet.advance(2.0)
    assert (peer.carrier, peer.name, peer.source) == ("udp", "pump", "udp:8471")
    assert (peer.peer.host, peer.peer.port, peer.peer.type) == ("198.51.100.7", 4000, "UDP")
    assert (peer.generation, peer.bound, peer.rtt, peer.watch) == (1, 6.0, None, "datagrams")
    assert peer.isAuthenticated and peer.logLimit is None
    assert peer.silence == pytest.approx(2.0)
    assert peer.seconds() == scene.now and peer.wheel is scene.monitor.wheel
    assert set(peer.eventFields()) == {
        "carrier", "name", "generation", "peer", "silence", "bound"}  # fmt: skip


def test_log(scene: Scene, events: list[LogEvent]) -> None:
    """
    The events of the log are those of links, with the carrier and the peer's name.
    """
    scene.meet(Sensor())
    scene.internet.advance(7.0)
    told = [event for event in events if event.get("carrier") == "udp"]
    assert [event["event"] for event in told] == ["connected", "suspected", "disconnected"]
    assert {(event["name"], event["peer"]) for event in told} == {("pump", "198.51.100.7:4000")}
    assert told[-1]["cause"] == "PeerSilent"


def test_goodbye(scene: Scene) -> None:
    """
    A goodbye is a cause of its own, and says whether the peer has moved.
    """
    for code, expected in ((0, GoodbyeCode.CLOSING), (4, GoodbyeCode.MOVED)):
        pump = Sensor(session=10 + code)
        scene.meet(pump)
        scene.deliver(pump.goodbye(scene.now, code))
        cause = scene.hooks.told[-1][1]
        assert type(cause) is PeerClosed
        assert cause.goodbyeCode is expected


def test_restartedPeer(scene: Scene) -> None:
    """
    A new session ends the one before: the end is told before the beginning, and the generations
    differ.
    """
    first = scene.meet(Sensor(session=1))
    second = scene.meet(Sensor(session=2))
    assert scene.hooks.names == ["connected", "disconnected", "connected"]
    assert type(scene.hooks.told[1][1]) is PeerReset
    assert (first.generation, second.generation) == (1, 2)
    scene.internet.advance(20.0)
    assert scene.hooks.names[3:] == ["suspected", "disconnected"]


def test_roaming(scene: Scene) -> None:
    """
    A peer whose address changes stays the same peer.
    """
    pump = Sensor()
    peer = scene.meet(pump)
    scene.internet.advance(1.0)
    scene.deliver(pump.heartbeat(scene.now), ("203.0.113.5", 5000))
    assert peer.peer.host == "203.0.113.5"
    assert scene.hooks.names == ["connected"]


def test_readings(scene: Scene, loggedErrors: Any) -> None:
    """
    Each reading is told once; a hook that fails costs nothing but a line in the log.
    """

    class Failing(DatagramHooks):
        def readingReceived(self, peer: DatagramPeer, reading: bytes) -> None:
            raise SystemExit

    scene.monitor.stopService()
    scene = Scene(hooks=[Failing(), scene.hooks, LinkHooks()])
    hooks = scene.monitor
    pump = Sensor()
    [challenge] = scene.deliver(pump.heartbeat(0.0, payload=b"21.5"))
    scene.deliver(pump.answer(challenge, 0.0, payload=b"21.5"))
    data = pump.heartbeat(1.0, payload=b"21.6")
    scene.deliver(data)
    scene.deliver(data)
    scene.deliver(pump.heartbeat(2.0))
    assert len(loggedErrors.flush(SystemExit)) == 2
    assert hooks.peers["pump"].received == 3
    scene.monitor.stopService()


def test_acknowledges(scene: Scene) -> None:
    """
    A heartbeat that asks for it is acknowledged at once.
    """
    pump = Sensor(flags=ACKNOWLEDGE)
    scene.meet(pump)
    [reply] = scene.deliver(pump.heartbeat(scene.now))
    assert decode(reply).type == Type.ACKNOWLEDGEMENT
    assert decode(reply).sequence == pump.sequence


def test_replyThatCannotBeSent(scene: Scene) -> None:
    """
    A network that is unreachable for the reply ends nothing, and is logged once a minute.
    """
    pump = Sensor(flags=ACKNOWLEDGE)
    peer = scene.meet(pump)
    scene.host.refusal = OSError(101, "Network is unreachable")
    for _ in range(5):
        scene.deliver(pump.heartbeat(scene.now))
    assert peer.received == 6


# Its own stalls.


@pytest.mark.parametrize("stall", [0.3, 4.0, 5.9, 60.0])
def test_ownStallIsNoSilence(scene: Scene, stall: float) -> None:
    """
    Promise 7: time in which this process did not run is no silence, also if the kernel has thrown
    away what came meanwhile; and a peer that is dead is found within one bound of running time.
    """
    pump = Sensor()
    scene.meet(pump)
    scene.beat(pump, 10.0)
    scene.internet.advance(0.5)
    scene.internet.clock.advance(stall)
    scene.internet.advance(5.2)
    assert "disconnected" not in scene.hooks.names
    scene.internet.advance(1.2)
    assert scene.hooks.names[-1] == "disconnected"


def test_stallThenHeartbeat(scene: Scene) -> None:
    """
    A heartbeat that is read right after a stall, before any timer has fired, does not move the
    bound into the future.
    """
    pump = Sensor()
    peer = scene.meet(pump)
    scene.beat(pump, 5.0)
    clock = scene.internet.clock
    clock.rightNow += 60.0
    scene.deliver(pump.heartbeat(scene.now))
    clock.advance(0.0)
    assert peer.state == "alive"
    scene.internet.advance(5.9)
    assert peer.alive
    scene.internet.advance(1.2)
    assert not peer.alive


def test_manyHeartbeatsAfterAStall(scene: Scene, events: list[LogEvent]) -> None:
    """
    Promise 7: after a stall, the heartbeats of a minute are read at once.  They are more than the
    peer may send in a second, which the log tells, and which is not held against it.
    """
    pump = Sensor(bound=0.5, interval=0.1)
    scene.meet(pump)
    clock = scene.internet.clock
    start = scene.now
    clock.rightNow += 60.0
    for number in range(600):
        scene.deliver(pump.heartbeat(start + number * 0.1))
    clock.advance(0.0)
    scene.beat(pump, 5.0)
    assert scene.hooks.names == ["connected"]
    assert [event["tooMany"] for event in events if "words" in event] == [550]


def test_lastLookReadsTheSocket(scene: Scene) -> None:
    """
    Before a verdict the socket is read once more: a heartbeat that lies in the kernel is heard.
    """
    pump = Sensor()
    peer = scene.meet(pump)
    waiting = [pump.heartbeat(6.0)]

    def doRead() -> None:
        while waiting:
            scene.deliver(waiting.pop())

    transport: Any = scene.monitor.transport
    transport.getHandle, transport.doRead = Handle, doRead
    scene.internet.advance(6.1)
    assert waiting == []
    assert peer.alive
    scene.internet.advance(6.1)
    assert not peer.alive


@pytest.mark.parametrize("isGoodbye", [True, False])
def test_lastLookReadsTheEnd(isGoodbye: bool) -> None:
    """
    A peer whose last look reads its own goodbye or its new session ends with that cause, and the
    others that are due in that tick are still watched.
    """
    names = ["pump", "lamp", "valve"]
    scene = Scene(dict.fromkeys(names, SECRET), challenge=False)
    sensors = [Sensor(name) for name in names]
    for sensor in sensors:
        scene.deliver(sensor.heartbeat(scene.now))
        scene.internet.advance(1 / 64)
    pump, again = sensors[0], Sensor("pump", session=2)
    waiting = [pump.goodbye(6.0) if isGoodbye else again.heartbeat(6.0)]

    def doRead() -> None:
        while waiting:
            scene.deliver(waiting.pop())

    transport: Any = scene.monitor.transport
    transport.getHandle, transport.doRead = Handle, doRead
    scene.internet.advance(5.99 - scene.now)
    # One tick, in which all of them are due.
    scene.internet.clock.advance(0.045)
    assert waiting == []
    scene.internet.advance(14.0)
    causes = [type(cause) for name, cause in scene.hooks.told if name == "disconnected"]
    first = [PeerClosed] if isGoodbye else [PeerReset, PeerSilent]
    assert causes[0] is first[0]
    assert sorted(map(str, causes)) == sorted(map(str, [*first, PeerSilent, PeerSilent]))
    assert scene.monitor.peers == {}
    scene.monitor.stopService()


def test_manyDieAtOnce() -> None:
    """
    Peers that die in one instant say so in their evidence.
    """
    names = [f"peer-{number}" for number in range(50)]
    scene = Scene(dict.fromkeys(names, SECRET))
    for name in names:
        scene.meet(Sensor(name))
    scene.internet.advance(7.0)
    causes = [cause for name, cause in scene.hooks.told if name == "disconnected"]
    assert len(causes) == 50
    assert causes[0].evidence.simultaneousVerdicts == 50
    scene.monitor.stopService()


# Its port.


def test_stopEndsThePeers(scene: Scene) -> None:
    """
    A monitor that stops ends its peers, and leaves nothing behind; it can start again, and then
    challenges.
    """
    pump = Sensor()
    scene.meet(pump)
    scene.monitor.stopService()
    assert type(scene.hooks.told[-1][1]) is ClosedHere
    scene.internet.advance(0.01)
    assert scene.internet.clock.getDelayedCalls() == []
    scene.internet.advance(100.0)
    scene.monitor.startService()
    [reply] = scene.deliver(pump.heartbeat(scene.now))
    assert decode(reply).type == Type.CHALLENGE


def test_lostPortIsOpenedAgain(scene: Scene, loggedErrors: Any) -> None:
    """
    A port that the system takes away is opened again, until that succeeds; the time without it is
    no silence.
    """
    pump = Sensor()
    peer = scene.meet(pump)
    scene.host.taken = True
    scene.internet.ports[(scene.host.address, 8471)].lost()
    scene.internet.advance(20.0)
    assert peer.alive
    # One for twenty attempts.
    assert len(loggedErrors.flush(CannotListenError)) == 1
    scene.host.taken = False
    scene.internet.advance(1.1)
    assert scene.hooks.names == ["connected"]
    scene.internet.advance(5.0)
    assert peer.alive
    scene.internet.advance(2.0)
    assert not peer.alive


def test_lostPortOfAStoppedService(scene: Scene, loggedErrors: Any) -> None:
    """
    A service that is stopped while its port is lost does not open it again.
    """
    scene.internet.ports[(scene.host.address, 8471)].lost()
    scene.monitor.stopService()
    scene.internet.advance(5.0)
    assert scene.internet.ports == {}
    assert scene.internet.clock.getDelayedCalls() == []


def test_stopWhileThePortIsLost(scene: Scene, loggedErrors: Any) -> None:
    """
    A service that is stopped while its port is lost ends its peers, whose silence does not count
    the time without the port, and leaves nothing behind.
    """
    peer = scene.meet(Sensor())
    scene.internet.advance(1.0)
    scene.internet.ports[(scene.host.address, 8471)].lost()
    scene.internet.advance(0.5)
    scene.monitor.stopService()
    assert scene.hooks.names == ["connected", "disconnected"]
    assert type(scene.hooks.told[-1][1]) is ClosedHere
    assert peer.silence == pytest.approx(1.0)
    assert scene.monitor.peers == {}
    assert scene.internet.clock.getDelayedCalls() == []
    scene.monitor.startService()
    scene.meet(Sensor(session=2))
    assert scene.hooks.names[2:] == ["connected"]


def test_groupThatCannotBeJoined(monkeypatch: pytest.MonkeyPatch, loggedErrors: Any) -> None:
    """
    A monitor that cannot join its group at its start raises, and keeps no port.  If its port was
    lost, it tries until the group can be joined; the time until then is no silence.
    """
    refusals: list[OSError] = []

    def join(port: Any, groups: Any) -> None:
        if refusals:
            raise refusals[0]

    def listen(self: Host, port: int, protocol: Any, listenMultiple: bool, **keywords: Any) -> Any:
        return self.listenUDP(port, protocol, **keywords)

    monkeypatch.setattr(monitorModule, "joinGroups", join)
    monkeypatch.setattr(Host, "listenMulticast", listen, raising=False)
    monkeypatch.setattr(Port, "getHandle", Handle, raising=False)
    scene = Scene(groups=["239.255.84.71"])
    peer = scene.meet(Sensor())
    refusals.append(OSError(19, "No such device"))
    scene.internet.ports[(scene.host.address, 8471)].lost()
    scene.internet.advance(20.0)
    assert scene.internet.ports == {}
    assert len(scene.internet.clock.getDelayedCalls()) == 1
    assert len(loggedErrors.flush(OSError)) == 1
    refusals.clear()
    scene.internet.advance(1.1)
    assert peer.alive and scene.hooks.names == ["connected"]
    scene.internet.advance(7.0)
    assert scene.hooks.names == ["connected", "suspected", "disconnected"]
    scene.monitor.stopService()
    refusals.append(OSError(19, "No such device"))
    with pytest.raises(OSError, match="No such device"):
        scene.monitor.startService()
    assert scene.internet.ports == {}
    assert scene.internet.clock.getDelayedCalls() == []
    refusals.clear()
    scene.monitor.startService()
    scene.meet(Sensor(session=2))
    scene.monitor.stopService()


def test_asAProtocol() -> None:
    """
    Without a port the monitor is a protocol for C{listenUDP}.
    """
    internet = Internet()
    host, hooks = Host(internet), Recorder()
    monitor = UDPHeartbeatMonitor({"pump": SECRET}, hooks=hooks, reactor=host, name="mine")
    port = host.listenUDP(8471, monitor)
    pump = Sensor()
    internet.deliver(pump.heartbeat(0.0), SENDER, (host.address, 8471))
    internet.deliver(pump.answer(internet.carried[-1][3], 0.0), SENDER, (host.address, 8471))
    assert monitor.peers["pump"].source == "mine"
    port.stopListening()
    assert hooks.names == ["connected", "disconnected"]
    internet.advance(0.01)
    assert internet.clock.getDelayedCalls() == []


# What it ignores.


def test_ignoredIsToldOnceAMinute(scene: Scene, events: list[LogEvent]) -> None:
    """
    What is ignored is counted, and told a second after it began, then once a minute, in one line.
    """
    forger = Sensor(secret=b"another key of a forger")
    for _ in range(130):
        for _ in range(10):
            scene.deliver(forger.heartbeat(scene.now))
        scene.deliver(b"x")
        scene.internet.advance(1.0, step=0.5)
    told = [event for event in events if "words" in event]
    assert len(told) == 3
    assert "forged" in told[0] and told[1]["forged"] == 600 and told[1]["malformed"] == 60
    assert "with a wrong MAC" in told[0]["words"]
    assert told[0]["latest"] == f"{SENDER[0]}:{SENDER[1]}"
    assert scene.monitor.ignored == {"forged": 1300, "malformed": 130}


def test_duplicatesAreNoWarning(scene: Scene, events: list[LogEvent]) -> None:
    """
    What the network duplicates or reorders is counted for the peer, and does not fill the log.
    """
    pump = Sensor()
    peer = scene.meet(pump)
    data = pump.heartbeat(scene.now)
    for _ in range(5):
        scene.deliver(data)
    scene.internet.advance(3.0)
    assert peer.duplicates == 4
    assert [event for event in events if "words" in event] == []


def test_oneWayIsSaidOnce(events: list[LogEvent], loggedErrors: Any) -> None:
    """
    A monitor that does not challenge says what that gives up, and not again when its port was lost.
    """
    scene = Scene(challenge=False)
    scene.deliver(Sensor().heartbeat(0.0))
    scene.internet.ports[(scene.host.address, 8471)].lost()
    scene.internet.advance(1.1)
    assert len(scene.internet.ports) == 1
    assert scene.hooks.names == ["connected"]
    scene.monitor.stopService()
    assert sum("not challenged" in event.get("log_format", "") for event in events) == 1


def test_keysCanBeReplaced(scene: Scene) -> None:
    """
    A key that is taken away is refused from then on.
    """
    pump = Sensor()
    peer = scene.meet(pump)
    scene.monitor.setKeys({"pump": b"another key of it"})
    scene.deliver(pump.heartbeat(1.0))
    assert peer.received == 1
    assert scene.monitor.ignored["forged"] == 1


def test_otherLimits() -> None:
    """
    Other bounds hold from a peer's next heartbeat on, also if that asks for no acknowledgement.
    Fewer peers than there are drop none, and keep new ones out.
    """
    scene = Scene({"pump": SECRET, "drum": SECRET, "fan": SECRET})
    stating, silent = Sensor(bound=60.0, interval=10.0, flags=0), Sensor("drum", bound=0, flags=0)
    [pump, drum] = [scene.meet(sensor) for sensor in (stating, silent)]
    assert (pump.bound, drum.bound) == (60.0, 35.0)
    limits = DatagramLimits(peers=1, maxBound=20.0)
    scene.monitor.changeSettings(heartbeat=Heartbeat.within(8), limits=limits)
    for sensor in (stating, silent):
        scene.deliver(sensor.heartbeat(scene.now))
    assert (pump.bound, drum.bound) == (20.0, 8.0)
    [challenge] = scene.deliver((fan := Sensor("fan")).heartbeat(scene.now))
    scene.deliver(fan.answer(challenge, scene.now))
    assert set(scene.monitor.peers) == {"pump", "drum"}
    assert scene.monitor.ignored["noRoom"] == 1
    scene.internet.advance(8.05)
    assert set(scene.monitor.peers) == {"pump"}
    scene.monitor.stopService()


@pytest.mark.parametrize("flags", [0, ACKNOWLEDGE])
@pytest.mark.parametrize("wasSuspected", [False, True])
def test_boundMayBecomeShorter(scene: Scene, flags: int, wasSuspected: bool) -> None:
    """
    Promise 22: the verdict falls by the bound of the last heartbeat, also if those before it had a
    longer one.
    """
    pump = Sensor(bound=60.0, interval=10.0, flags=flags)
    peer = scene.meet(pump)
    scene.internet.advance(40.0 if wasSuspected else 1.0)
    assert peer.suspected is wasSuspected
    pump.bound, pump.interval = 2.0, 0.5
    scene.deliver(pump.heartbeat(scene.now))
    scene.internet.advance(1.99)
    assert peer.alive
    scene.internet.advance(0.06)
    assert scene.hooks.names[-2:] == ["suspected", "disconnected"]


def test_boundOfASenderThatStatesNone() -> None:
    """
    The monitor's own bound holds for senders that state none.
    """
    scene = Scene(heartbeat=Heartbeat.within(9.0), limits=DatagramLimits(maxBound=100.0))
    assert scene.meet(Sensor(bound=0.0)).bound == 9.0
    scene.monitor.stopService()
