# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The presence table as the observer of a monitor of datagrams, over a network that loses some, in
virtual time.
"""

from __future__ import annotations

from twisted_heartbeat import PeerState, UDPHeartbeatMonitor

from ..support.datagrams import SECRET, Sensor
from ..support.presence import FakeWatched, Watcher
from ..support.virtualudp import Host, Internet

UP, SUSPECT, DOWN, UNKNOWN = PeerState.UP, PeerState.SUSPECT, PeerState.DOWN, PeerState.UNKNOWN

SENDER = ("198.51.100.7", 4000)


class Field:
    """
    A monitor with a table, and a sensor that sends to it.
    """

    def __init__(self) -> None:
        self.internet = Internet()
        self.host = Host(self.internet)
        self.watcher = Watcher(clock=self.internet.clock)
        self.sensor = Sensor()
        self.monitor = self.listening()

    def listening(self) -> UDPHeartbeatMonitor:
        """
        A monitor that the table observes.
        """
        table = self.watcher.table
        monitor = UDPHeartbeatMonitor(
            {"pump": SECRET}, reactor=self.host, port=8471, hooks=table, name="field"
        )
        monitor.startService()
        return monitor

    def send(self, data: bytes) -> list[bytes]:
        """
        Send a datagram to the monitor.

        @return: the replies.
        """
        before = len(self.internet.carried)
        self.internet.deliver(data, SENDER, (self.host.address, 8471))
        return [data for _, _, _, data in self.internet.carried[before:]]

    def meet(self) -> None:
        """
        Let the sensor prove that it lives.
        """
        now = self.internet.clock.seconds()
        [challenge] = self.send(self.sensor.heartbeat(now))
        self.send(self.sensor.answer(challenge, now))

    def beat(self, count: int, lost: int = 0) -> None:
        """
        Let the sensor send, once a second, first those that are lost.
        """
        for number in range(count):
            self.wait(1)
            data = self.sensor.heartbeat(self.internet.clock.seconds())
            if number >= lost:
                self.send(data)

    def wait(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self.watcher.wall += seconds
        self.internet.advance(seconds)

    def stop(self) -> None:
        """
        End all.
        """
        self.monitor.stopService()
        self.watcher.stop()


def test_sensorComesAndGoes() -> None:
    """
    A sensor goes by the name that its key proves.  The table shows what the network has lost, and
    makes it suspect and down within its bound.
    """
    field = Field()
    field.meet()
    field.beat(5, lost=2)
    seen = field.watcher.table.peers["pump"]
    assert (seen.state, seen.carriers, seen.bound) == (UP, ("udp",), 6.0)
    assert (seen.losses, seen.address) == (2, "198.51.100.7:4000")
    field.wait(6.1)
    assert field.watcher.hooks.states == [UP, SUSPECT, DOWN]
    down = field.watcher.hooks.told[-1]
    assert (down.cause, down.source, down.carrier) == ("PeerSilent", "field", "udp")
    field.stop()


def test_newSessionIsUp() -> None:
    """
    A sensor that restarts is down and up again, or only up if a link hears it meanwhile; and the
    end of the old session does not end the new one.
    """
    field = Field()
    field.meet()
    link = FakeWatched("pump", carrier="tls", isAuthenticated=True)
    field.watcher.table.connected(link)
    field.sensor = Sensor(session=2)
    field.wait(1)
    field.meet()
    field.wait(1)
    assert field.watcher.hooks.states == [UP]
    assert field.watcher.table.peers["pump"].carriers == ("tls", "udp")
    field.stop()


def test_monitorRestarts() -> None:
    """
    When the process of the monitor ends cleanly and starts again, no fall is told, and the sensor
    is unknown until it is heard.
    """
    field = Field()
    field.meet()
    field.wait(1)
    field.stop()
    assert field.watcher.hooks.states == [UP]
    field.watcher = Watcher(field.watcher.store, clock=field.internet.clock)
    field.monitor = field.listening()
    field.wait(1)
    assert field.watcher.stateOf("pump") is UNKNOWN
    field.meet()
    field.wait(1)
    assert field.watcher.hooks.states == [UNKNOWN, UP]
    field.stop()
